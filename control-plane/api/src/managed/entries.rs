//! `metadata.managedFields`: managers with the sets of their fields.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::FieldSet;
use crate::{ObjectExt, time};

/// Longest name of a field manager, in bytes.
pub const MAX_MANAGER_BYTES: usize = 128;
/// Managers of updates kept apart; the oldest are put together.
const MAX_UPDATE_MANAGERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// What a manager does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Server-side apply.
    Apply,
    /// Every other write.
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Who a set of fields belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
}

/// A manager and its fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub identity: Identity,
    pub time: String,
    pub fields: FieldSet,
}

/// All managers of an object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entries(pub Vec<Entry>);

impl Entries {
    /// Takes the managers out of an object that the server wrote.
    pub(super) fn stored(object: &Value) -> Self {
        Self::read(object.list_at("/metadata/managedFields"), false).unwrap_or_default()
    }

    /// Reads managers that a client sent; `None` when they are not valid.
    pub(super) fn given(list: &[Value]) -> Option<Self> {
        Self::read(list, true)
    }

    fn read(list: &[Value], canonical: bool) -> Option<Self> {
        let mut entries: Vec<Entry> = Vec::with_capacity(list.len());
        for item in list {
            let operation = match item.str_at("/operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return None,
            };
            if item.str_at("/fieldsType") != "FieldsV1" || item.str_at("/apiVersion").is_empty() {
                return None;
            }
            let fields = match item.get("fieldsV1") {
                Some(fields) if canonical => FieldSet::parse(fields),
                Some(Value::Object(map)) => FieldSet::from_stored(map.clone()),
                _ => FieldSet::default(),
            };
            let identity = Identity {
                manager: item.str_at("/manager").to_string(),
                operation,
                api_version: item.str_at("/apiVersion").to_string(),
                subresource: item.str_at("/subresource").to_string(),
            };
            let time = item.str_at("/time").to_string();
            match entries.iter_mut().find(|entry| entry.identity == identity) {
                Some(entry) => entry.fields = entry.fields.union(&fields),
                None => entries.push(Entry {
                    identity,
                    time,
                    fields,
                }),
            }
        }
        Some(Entries(entries))
    }

    pub(super) fn get(&self, identity: &Identity) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.identity == *identity)
    }

    /// Gives a manager these fields, now.
    pub(super) fn set(&mut self, identity: Identity, fields: FieldSet, now: Timestamp) {
        self.0.retain(|entry| entry.identity != identity);
        self.0.push(Entry {
            identity,
            time: time::to_seconds(now),
            fields,
        });
    }

    /// Every field that somebody owns.
    pub(super) fn owned(&self) -> FieldSet {
        self.0
            .iter()
            .fold(FieldSet::default(), |all, entry| all.union(&entry.fields))
    }

    /// Writes the managers into the object.
    pub(super) fn write(mut self, object: &mut Value) {
        self.0.retain(|entry| !entry.fields.is_empty());
        self.cap();
        if self.0.is_empty() {
            object.remove_at(&["metadata", "managedFields"]);
            return;
        }
        self.0.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
        let list: Vec<Value> = self.0.into_iter().map(Entry::into_value).collect();
        object.set_at(&["metadata", "managedFields"], Value::Array(list));
    }

    fn cap(&mut self) {
        let updates = |entry: &&Entry| entry.identity.operation == Operation::Update;
        let count = self.0.iter().filter(updates).count();
        if count <= MAX_UPDATE_MANAGERS {
            return;
        }
        let mut oldest: Vec<(String, usize)> = self
            .0
            .iter()
            .enumerate()
            .filter(|(_, entry)| updates(entry))
            .map(|(index, entry)| (entry.time.clone(), index))
            .collect();
        oldest.sort();
        // One place is for the sum of them.
        oldest.truncate(count - MAX_UPDATE_MANAGERS + 1);
        let mut ancient: Option<Entry> = None;
        for (_, index) in &oldest {
            let Some(entry) = self.0.get(*index) else {
                continue;
            };
            match &mut ancient {
                Some(sum) => {
                    sum.fields = sum.fields.union(&entry.fields);
                    sum.time.clone_from(&entry.time);
                }
                None => {
                    let mut sum = entry.clone();
                    sum.identity.manager = ANCIENT.to_string();
                    sum.identity.subresource.clear();
                    ancient = Some(sum);
                }
            }
        }
        let mut index = 0;
        self.0.retain(|_| {
            index += 1;
            !oldest.iter().any(|(_, old)| *old == index - 1)
        });
        self.0.extend(ancient);
    }
}

fn sort_key(entry: &Entry) -> (Operation, &str, &str, &str, &str) {
    let identity = &entry.identity;
    (
        identity.operation,
        &entry.time,
        &identity.manager,
        &identity.api_version,
        &identity.subresource,
    )
}

impl Entry {
    fn into_value(self) -> Value {
        let mut map = Map::new();
        map.insert("manager".into(), json!(self.identity.manager));
        map.insert("operation".into(), json!(self.identity.operation.as_str()));
        map.insert("apiVersion".into(), json!(self.identity.api_version));
        if !self.time.is_empty() {
            map.insert("time".into(), json!(self.time));
        }
        map.insert("fieldsType".into(), json!("FieldsV1"));
        map.insert("fieldsV1".into(), self.fields.into_value());
        if !self.identity.subresource.is_empty() {
            map.insert("subresource".into(), json!(self.identity.subresource));
        }
        Value::Object(map)
    }
}
