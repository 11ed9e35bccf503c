//! A structural schema, read from a CustomResourceDefinition's `openAPIV3Schema` into the form
//! that pruning, defaulting and validation walk.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

use super::{
    attach,
    patterns::{PatternError, Patterns},
    rules::Validation,
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
};

/// Schemas in one version of a definition, nested ones counted: more would cost more memory
/// than any honest definition does.
pub const MAX_NODES: usize = 65_536;

/// Why a schema cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// Too large.
    #[error("the schema has more than {MAX_NODES} parts")]
    TooLarge,
    /// A regular expression that cannot be used.
    #[error("pattern {pattern:?}: {source}")]
    Pattern {
        /// The expression.
        pattern: String,
        /// What is wrong with it.
        source: PatternError,
    },
}

/// JSON types, as schemas name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// `object`.
    Object,
    /// `array`.
    Array,
    /// `string`.
    String,
    /// `integer`.
    Integer,
    /// `number`.
    Number,
    /// `boolean`.
    Boolean,
}

impl ValueType {
    /// By its name.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => ValueType::Object,
            "array" => ValueType::Array,
            "string" => ValueType::String,
            "integer" => ValueType::Integer,
            "number" => ValueType::Number,
            "boolean" => ValueType::Boolean,
            _ => return None,
        })
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            ValueType::Object => "object",
            ValueType::Array => "array",
            ValueType::String => "string",
            ValueType::Integer => "integer",
            ValueType::Number => "number",
            ValueType::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub enum Additional {
    /// Not given.
    #[default]
    None,
    /// `true`: anything.
    Any,
    /// All values are like this.
    Schema(Box<Node>),
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum ListRule {
    /// Replaced whole.
    #[default]
    Atomic,
    /// Unique scalars.
    Set,
    /// Objects, unique by these keys.
    Map(Vec<String>),
}

/// What a schema demands of a value beyond its structure.
#[derive(Debug, Default)]
pub struct Rules {
    /// `format`.
    pub format: String,
    /// `maximum`, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `minimum`, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
    /// `maxLength`, in characters.
    pub max_length: Option<u64>,
    /// `minLength`, in characters.
    pub min_length: Option<u64>,
    /// `pattern`, as written and ready to use.
    pub pattern: Option<(String, Regex)>,
    /// `maxItems`.
    pub max_items: Option<u64>,
    /// `minItems`.
    pub min_items: Option<u64>,
    /// `maxProperties`.
    pub max_properties: Option<u64>,
    /// `minProperties`.
    pub min_properties: Option<u64>,
    /// `enum`.
    pub one_of_values: Vec<Value>,
    /// `required`.
    pub required: Vec<String>,
    /// `allOf`.
    pub all_of: Vec<Node>,
    /// `anyOf`.
    pub any_of: Vec<Node>,
    /// `oneOf`.
    pub one_of: Vec<Node>,
    /// `not`.
    pub not: Option<Box<Node>>,
}

/// One schema.
#[derive(Debug, Default)]
pub struct Node {
    /// `type`.
    pub value_type: Option<ValueType>,
    /// `properties`.
    pub properties: BTreeMap<String, Node>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Node>>,
    /// `nullable`.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `default`.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`.
    pub list: ListRule,
    /// Demands on the value; `None`: none.
    pub rules: Option<Box<Rules>>,
    /// Something in here, or below, has a default.
    pub has_defaults: bool,
    /// `x-kubernetes-validations`.
    pub(super) validations: Vec<Validation>,
    /// There are such rules in here, or below.
    pub(super) has_validations: bool,
}

impl Node {
    /// Reads a schema.
    ///
    /// # Errors
    /// When the schema is too large or one of its patterns cannot be used.
    pub fn compile(schema: &Value) -> Result<Node, CompileError> {
        Self::compile_at(schema, &Path::default(), &mut Errors::default())
    }

    /// Reads the schema at `path` of a definition; what is wrong with its rules goes into
    /// `errors`, and such rules are left out.
    ///
    /// # Errors
    /// When the schema is too large or one of its patterns cannot be used.
    pub fn compile_at(
        schema: &Value,
        path: &Path,
        errors: &mut Errors,
    ) -> Result<Node, CompileError> {
        let mut node = Compiler {
            patterns: Patterns::default(),
            nodes: 0,
        }
        .node(schema)?;
        attach::attach(&mut node, schema, path, errors);
        Ok(node)
    }

    /// The schema of a field.
    pub fn field(&self, name: &str) -> Option<&Node> {
        match (self.properties.get(name), &self.additional) {
            (Some(node), _) => Some(node),
            (None, Additional::Schema(node)) => Some(node),
            _ => None,
        }
    }
}

struct Compiler {
    patterns: Patterns,
    nodes: usize,
}

impl Compiler {
    fn node(&mut self, schema: &Value) -> Result<Node, CompileError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(CompileError::TooLarge);
        }
        let mut properties = BTreeMap::new();
        for (name, inner) in schema.map_at("/properties").into_iter().flatten() {
            properties.insert(name.clone(), self.node(inner)?);
        }
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Additional::Any,
            Some(inner @ Value::Object(_)) => Additional::Schema(Box::new(self.node(inner)?)),
            _ => Additional::None,
        };
        let items = match schema.get("items") {
            Some(inner @ Value::Object(_)) => Some(Box::new(self.node(inner)?)),
            _ => None,
        };
        let list = match schema.str_at("/x-kubernetes-list-type") {
            "set" => ListRule::Set,
            "map" => ListRule::Map(texts(schema, "x-kubernetes-list-map-keys")),
            _ => ListRule::Atomic,
        };
        let default = schema.get("default").filter(|value| !value.is_null());
        let has_defaults = default.is_some()
            || properties.values().any(|node| node.has_defaults)
            || items.as_ref().is_some_and(|node| node.has_defaults)
            || matches!(&additional, Additional::Schema(node) if node.has_defaults);
        Ok(Node {
            value_type: ValueType::parse(schema.str_at("/type")),
            properties,
            additional,
            items,
            nullable: schema.bool_at("/nullable"),
            preserve_unknown: schema.bool_at("/x-kubernetes-preserve-unknown-fields"),
            int_or_string: schema.bool_at("/x-kubernetes-int-or-string"),
            embedded: schema.bool_at("/x-kubernetes-embedded-resource"),
            default: default.cloned(),
            list,
            rules: self.rules(schema)?,
            has_defaults,
            validations: Vec::new(),
            has_validations: false,
        })
    }

    fn nodes(&mut self, schema: &Value, word: &str) -> Result<Vec<Node>, CompileError> {
        let list = schema.get(word).and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .map(|inner| self.node(inner))
            .collect()
    }

    fn rules(&mut self, schema: &Value) -> Result<Option<Box<Rules>>, CompileError> {
        const WORDS: [&str; 18] = [
            "format",
            "maximum",
            "minimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "maxProperties",
            "minProperties",
            "enum",
            "required",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "uniqueItems",
        ];
        let Some(map) = schema.as_object() else {
            return Ok(None);
        };
        if !WORDS.iter().any(|word| map.contains_key(*word)) {
            return Ok(None);
        }
        let pattern = match schema.str_at("/pattern") {
            "" => None,
            text => {
                let regex = self
                    .patterns
                    .get(text)
                    .map_err(|source| CompileError::Pattern {
                        pattern: text.to_string(),
                        source,
                    })?;
                Some((text.to_string(), regex))
            }
        };
        let not = match schema.get("not") {
            Some(inner @ Value::Object(_)) => Some(Box::new(self.node(inner)?)),
            _ => None,
        };
        Ok(Some(Box::new(Rules {
            format: schema.str_at("/format").to_string(),
            maximum: bound(map, "maximum", "exclusiveMaximum"),
            minimum: bound(map, "minimum", "exclusiveMinimum"),
            multiple_of: map.get("multipleOf").and_then(Value::as_f64),
            max_length: count(map, "maxLength"),
            min_length: count(map, "minLength"),
            pattern,
            max_items: count(map, "maxItems"),
            min_items: count(map, "minItems"),
            max_properties: count(map, "maxProperties"),
            min_properties: count(map, "minProperties"),
            one_of_values: schema.list_at("/enum").to_vec(),
            required: texts(schema, "required"),
            all_of: self.nodes(schema, "allOf")?,
            any_of: self.nodes(schema, "anyOf")?,
            one_of: self.nodes(schema, "oneOf")?,
            not,
        })))
    }
}

fn bound(map: &Map<String, Value>, word: &str, exclusive: &str) -> Option<(f64, bool)> {
    let limit = map.get(word).and_then(Value::as_f64)?;
    Some((limit, map.get(exclusive) == Some(&Value::Bool(true))))
}

fn count(map: &Map<String, Value>, word: &str) -> Option<u64> {
    map.get(word).and_then(Value::as_u64)
}

/// A list of texts.
fn texts(schema: &Value, word: &str) -> Vec<String> {
    schema
        .get(word)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}
