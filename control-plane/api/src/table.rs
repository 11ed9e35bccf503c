//! `meta.k8s.io/v1` Table: the columns that kubectl prints.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{ObjectExt, registry::Kind, time};

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// OpenAPI type of the cells.
    pub cell_type: &'static str,
    /// `name` marks the object's name.
    pub format: &'static str,
    /// What it shows.
    pub description: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: u8,
}

/// A column that is always shown.
pub const fn column(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        cell_type: "string",
        format: "",
        description,
        priority: 0,
    }
}

/// A column shown with `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        cell_type: "string",
        format: "",
        description,
        priority: 1,
    }
}

/// A column of numbers.
pub const fn number(name: &'static str, description: &'static str) -> Column {
    Column {
        name,
        cell_type: "integer",
        format: "",
        description,
        priority: 0,
    }
}

/// The column of the object's name.
pub const NAME: Column = Column {
    name: "Name",
    cell_type: "string",
    format: "name",
    description: "Name must be unique within a namespace (for namespaced kinds) or the cluster.",
    priority: 0,
};

/// The column of the object's age.
pub const AGE: Column = column("Age", "Time since the object was created.");

/// For kinds with nothing else to show.
pub const NAME_AND_AGE: &[Column] = &[NAME, column("Created At", "When the object was created.")];

/// The cell under [`AGE`].
pub fn age_cell(object: &Value, now: Timestamp) -> Value {
    Value::from(time::age(object.str_at("/metadata/creationTimestamp"), now))
}

/// What a row carries of the object itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(IncludeObject::None),
            "" | "Metadata" => Some(IncludeObject::Metadata),
            "Object" => Some(IncludeObject::Object),
            _ => None,
        }
    }
}

/// A column as the head of a table has it.
pub fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.cell_type,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

/// The definitions of a kind's columns.
pub fn column_definitions(kind: &Kind) -> Value {
    kind.strategy.column_definitions()
}

/// One row.
pub fn row(kind: &Kind, object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = json!({ "cells": kind.strategy.row(object, now) });
    match include {
        IncludeObject::None => {}
        IncludeObject::Metadata => row["object"] = partial_metadata(object),
        IncludeObject::Object => row["object"] = object.clone(),
    }
    row
}

/// A whole table; `metadata` is that of the list.
pub fn table(columns: Option<Value>, metadata: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The object without spec and status.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or(Value::Null),
    })
}

/// A text for a cell, or what stands for its absence.
pub fn text_or(text: &str, absent: &str) -> Value {
    Value::from(if text.is_empty() { absent } else { text })
}
