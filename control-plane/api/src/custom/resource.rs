//! One served version of a custom resource.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{
    columns::{self, CustomColumn},
    definition::Definition,
    node::{CompileError, Node},
    prune, rules,
    scale::ScalePaths,
    validate,
};
use crate::{
    ObjectExt,
    field::FieldError,
    schema::{Report, TypeError},
};

/// Everything that the server knows about the objects.
#[derive(Debug, Default)]
pub struct CustomResource {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// The kind of its lists.
    pub list_kind: String,
    /// `group/version` of what is stored.
    pub stored_as: String,
    /// The `openAPIV3Schema`.
    pub schema: Value,
    /// The same, to be walked.
    pub(super) node: Node,
    pub(super) columns: Vec<CustomColumn>,
    /// Fields that field selectors know, as `spec.color`.
    pub selectable: Vec<String>,
    /// Where the replicas are, with the `scale` subresource.
    pub scale: Option<ScalePaths>,
    /// The status has its own subresource.
    pub has_status: bool,
    /// The definition is being deleted: nothing new is accepted.
    pub terminating: bool,
    /// What users of a deprecated version are told.
    pub warning: Option<String>,
    /// Who converts between the versions; `None`: they differ by name only.
    pub converter: Option<Arc<Converter>>,
}

/// A webhook that converts objects between versions (`spec.conversion.webhook`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Converter {
    /// `clientConfig`: where it is.
    pub client: Value,
    /// `apiVersion` of the reviews that it reads.
    pub review: String,
}

impl Converter {
    fn read(definition: &Definition<'_>) -> Option<Self> {
        let conversion = definition.0.pointer("/spec/conversion")?;
        if conversion.str_at("/strategy") != "Webhook" {
            return None;
        }
        let versions = conversion.list_at("/webhook/conversionReviewVersions");
        // The two versions of a review have the same fields.
        let known = versions
            .iter()
            .filter_map(Value::as_str)
            .find(|version| ["v1", "v1beta1"].contains(version));
        Some(Converter {
            client: conversion
                .pointer("/webhook/clientConfig")
                .cloned()
                .unwrap_or_default(),
            review: format!("apiextensions.k8s.io/{}", known.unwrap_or("v1")),
        })
    }
}

impl CustomResource {
    /// Reads one of the versions of a definition.
    ///
    /// # Errors
    /// When the schema cannot be used.
    pub fn compile(definition: &Definition<'_>, version: &Value) -> Result<Self, CompileError> {
        let mut schema = version
            .pointer("/schema/openAPIV3Schema")
            .cloned()
            .unwrap_or_else(|| Value::Object(Map::new()));
        if definition.preserves_unknown_fields() {
            schema.set_at(&["x-kubernetes-preserve-unknown-fields"], Value::Bool(true));
        }
        let name = version.str_at("/name");
        let group = definition.group();
        let selectable = version.list_at("/selectableFields").iter();
        Ok(CustomResource {
            group: group.to_string(),
            version: name.to_string(),
            kind: definition.kind().to_string(),
            list_kind: definition.list_kind().to_string(),
            stored_as: format!("{group}/{}", definition.storage_version()),
            node: Node::compile(&schema)?,
            schema,
            columns: columns::read(version),
            selectable: selectable
                .map(|field| field.str_at("/jsonPath"))
                .map(|path| path.trim_start_matches('.').to_string())
                .collect(),
            scale: version
                .pointer("/subresources/scale")
                .and_then(ScalePaths::read),
            has_status: version.pointer("/subresources/status").is_some(),
            terminating: definition.is_terminating(),
            warning: version.bool_at("/deprecated").then(|| {
                match version.str_at("/deprecationWarning") {
                    "" => format!("{group}/{name} {} is deprecated", definition.kind()),
                    text => text.to_string(),
                }
            }),
            converter: Converter::read(definition).map(Arc::new),
        })
    }

    /// `group/version`.
    pub fn group_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }

    /// A stored object has to go through the webhook before it is one of this version.
    pub fn must_convert(&self, stored: &Value) -> bool {
        self.converter.is_some() && stored.str_at("/apiVersion") != self.group_version()
    }

    /// Drops what the schema does not know, and reports it.
    ///
    /// # Errors
    /// When the metadata holds values of wrong types.
    pub fn prune(&self, object: &mut Value) -> Result<Report, TypeError> {
        prune::prune(&self.node, object)
    }

    /// Fills in the defaults.
    pub fn apply_defaults(&self, object: &mut Value) {
        prune::apply_defaults(&self.node, object);
    }

    /// What is wrong with the object's values.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate::validate(&self.node, object, old);
        rules::check(&self.node, object, old, &mut errors);
        errors
    }

    /// A stored object in this version; one of another version must have been converted.
    pub fn served(&self, mut object: Value) -> Value {
        object.set_at(&["apiVersion"], Value::from(self.group_version()));
        object.set_at(&["kind"], Value::from(self.kind.as_str()));
        // What is stored had well-formed metadata when it was written.
        let _ = prune::prune(&self.node, &mut object);
        self.apply_defaults(&mut object);
        object
    }

    /// An object of this version as it is stored.
    pub fn stored(&self, mut object: Value) -> Value {
        object.set_at(&["apiVersion"], Value::from(self.stored_as.as_str()));
        object
    }
}
