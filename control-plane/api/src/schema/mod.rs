//! The known fields of the served kinds: their types, how strategic merge patch treats
//! them, and what the OpenAPI documents say about them.
//!
//! The facts are text tables (`tables/*.schema`), compiled in and parsed at the first use:
//!
//! ```text
//! package core io.k8s.api.core.v1 v1    short name, OpenAPI package, apiVersion
//! type Container                        a type; "atomic" after the name: replaced whole
//!  name string !                        field, type; ! is required
//!  ports [ContainerPort] merge:containerPort map:containerPort,protocol
//!  protocol string ="TCP"               default in the OpenAPI document
//!  replicas int32 #1*                   protobuf field 1; an explicit zero is kept
//!  emptyDir EmptyDirVolumeSource #2.2   protobuf field 2 of the message in field 2
//! ```
//!
//! Types: `string bytes bool int32 int64 float time microTime quantity intOrString fieldsV1
//! any schemaOrBool schemaOrArray schemaOrStringArray`, `[T]` list, `{T}` map with text keys, `Name` a type of the same package,
//! `package.Name` one of another. `merge[:key]`, `replace` and `retainKeys` are patch strategies;
//! `map:keys`, `set` the list's type (atomic when absent).
//!
//! [`conform`] checks an object against its type: wrong types are errors in the words of
//! Go's decoder, unknown fields are dropped and reported, quantities and times come out in
//! their canonical form.

mod conform;
mod parse;

use std::sync::LazyLock;

pub use conform::{Report, TypeError, conform, conform_named, go_kind};

/// Position of a type in [`Schema::types`].
pub type TypeId = usize;

/// The type of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldType {
    /// Text.
    String,
    /// Base64 text.
    Bytes,
    /// true or false.
    Bool,
    /// Whole number, 32 bits.
    Int32,
    /// Whole number, 64 bits.
    Int64,
    /// Any number.
    Float,
    /// RFC 3339, seconds.
    Time,
    /// RFC 3339, microseconds.
    MicroTime,
    /// `100m`, `1Gi`.
    Quantity,
    /// Number or text.
    IntOrString,
    /// Managed fields: a free map.
    FieldsV1,
    /// Anything.
    Any,
    /// `additionalProperties` and the like of a CustomResourceDefinition: schema or truth value.
    SchemaOrBool,
    /// `items` of a CustomResourceDefinition: a schema or a list of them.
    SchemaOrArray,
    /// `dependencies` of a CustomResourceDefinition: a schema or a list of names.
    SchemaOrStringArray,
    /// A list.
    List(Box<FieldType>),
    /// A map with text keys.
    Map(Box<FieldType>),
    /// A type of the table.
    Object(TypeId),
}

/// How strategic merge patch treats a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PatchRule {
    /// Lists are merged, maps of the patch are merged (else lists are replaced).
    pub merge: bool,
    /// The key that identifies an element; `None` for lists of scalars.
    pub merge_key: Option<String>,
    /// `$retainKeys` is expected.
    pub retain_keys: bool,
    /// The map of the patch takes the old one's place.
    pub replace: bool,
}

/// How a list is owned and merged in server-side apply; also in OpenAPI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListType {
    /// Replaced whole.
    #[default]
    Atomic,
    /// Of unique scalars.
    Set,
    /// Of objects, identified by these keys.
    Map(Vec<String>),
}

/// A field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name on the wire.
    pub name: String,
    /// Type.
    pub field_type: FieldType,
    /// The OpenAPI document says that it is required.
    pub required: bool,
    /// Patch strategy.
    pub patch: PatchRule,
    /// List type, for lists.
    pub list_type: ListType,
    /// The map or object is replaced whole in server-side apply.
    pub atomic: bool,
    /// Default in the OpenAPI document.
    pub default: Option<serde_json::Value>,
    /// Where it is in the protobuf message.
    pub wire: Wire,
}

/// A field's place in its type's protobuf message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wire {
    /// Field numbers, from the outermost message inwards: JSON flattens some messages into
    /// their parents. Empty: the field is not in the message (`kind`, `apiVersion`).
    pub path: Vec<u32>,
    /// A zero on the wire is a value, not absence.
    pub explicit_zero: bool,
}

/// What a protobuf field number of a message stands for.
#[derive(Debug)]
pub enum WireNode {
    /// The field at this position in [`ObjectType::fields`].
    Field(usize),
    /// A message whose fields JSON has in the parent.
    Inline(WireTree),
}

/// The fields of a protobuf message, sorted by number.
#[derive(Debug, Default)]
pub struct WireTree(pub Vec<(u32, WireNode)>);

impl WireTree {
    /// What a field number stands for.
    pub fn node(&self, number: u32) -> Option<&WireNode> {
        let position = self.0.binary_search_by_key(&number, |(n, _)| *n).ok()?;
        self.0.get(position).map(|(_, node)| node)
    }

    fn insert(&mut self, path: &[u32], field: usize) {
        let [number, rest @ ..] = path else { return };
        let position = match self.0.binary_search_by_key(number, |(n, _)| *n) {
            Ok(position) => position,
            Err(position) => {
                let node = match rest {
                    [] => WireNode::Field(field),
                    _ => WireNode::Inline(WireTree::default()),
                };
                self.0.insert(position, (*number, node));
                position
            }
        };
        if let (false, Some((_, WireNode::Inline(tree)))) =
            (rest.is_empty(), self.0.get_mut(position))
        {
            tree.insert(rest, field);
        }
    }
}

/// A type with fields.
#[derive(Debug)]
pub struct ObjectType {
    /// Short package, e.g. `core`.
    pub package: &'static str,
    /// OpenAPI package, e.g. `io.k8s.api.core.v1`.
    pub open_api_package: &'static str,
    /// The `apiVersion` of its objects, e.g. `apps/v1`.
    pub api_version: &'static str,
    /// Name, e.g. `PodSpec`.
    pub name: &'static str,
    /// The type is replaced whole in server-side apply.
    pub atomic: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// The same fields as protobuf has them.
    pub wire: WireTree,
}

impl ObjectType {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields
            .binary_search_by(|field| field.name.as_str().cmp(name))
            .ok()
            .and_then(|position| self.fields.get(position))
    }
}

/// All types.
#[derive(Debug)]
pub struct Schema {
    types: Vec<ObjectType>,
    by_name: std::collections::HashMap<String, TypeId>,
}

impl Schema {
    /// A type by its position.
    pub fn object(&self, id: TypeId) -> &ObjectType {
        &self.types[id]
    }

    /// Position of a type by `package.Name`.
    pub fn id(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The type of the objects of a kind.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<TypeId> {
        // Kinds that belong to no group: their objects say v1.
        let meta = |object: &ObjectType| object.package == "meta" && api_version == "v1";
        self.types.iter().position(|object| {
            object.name == kind && (object.api_version == api_version || meta(object))
        })
    }

    /// All types.
    pub fn types(&self) -> &[ObjectType] {
        &self.types
    }
}

/// The type of schemas in a CustomResourceDefinition.
pub const JSON_SCHEMA: &str = "apiextensions.JSONSchemaProps";

const TABLES: [&str; 23] = [
    include_str!("tables/admission.schema"),
    include_str!("tables/apiextensions.schema"),
    include_str!("tables/apiregistration.schema"),
    include_str!("tables/apps.schema"),
    include_str!("tables/authentication.schema"),
    include_str!("tables/authorization.schema"),
    include_str!("tables/autoscaling.schema"),
    include_str!("tables/autoscalingv2.schema"),
    include_str!("tables/batch.schema"),
    include_str!("tables/certificates.schema"),
    include_str!("tables/coordination.schema"),
    include_str!("tables/core.schema"),
    include_str!("tables/discovery.schema"),
    include_str!("tables/events.schema"),
    include_str!("tables/flowcontrol.schema"),
    include_str!("tables/meta.schema"),
    include_str!("tables/networking.schema"),
    include_str!("tables/node.schema"),
    include_str!("tables/policy.schema"),
    include_str!("tables/rbac.schema"),
    include_str!("tables/resource.schema"),
    include_str!("tables/scheduling.schema"),
    include_str!("tables/storage.schema"),
];

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse::parse(&TABLES));

/// The compiled-in schema.
pub fn schema() -> &'static Schema {
    &SCHEMA
}
