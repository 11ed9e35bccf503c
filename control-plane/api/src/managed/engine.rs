//! What a write does to the object and to its owners.

use jiff::Timestamp;
use serde_json::Value;

use super::{
    entries::{Entries, Entry, Identity, Operation},
    merge,
    set::FieldSet,
    types::TypeRef,
    walk::{applied_fields, compare},
};
use crate::ObjectExt;

/// Fields of the metadata that nobody owns.
const UNOWNED_METADATA: &[&str] = &[
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:selfLink",
    "f:uid",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
];
/// Owner of everything that was there before an object had owners.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that an endpoint does not write, whatever the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// It writes all of them.
    Nothing,
    /// It does not write the status.
    Status,
    /// It writes only status and metadata.
    AllButStatus,
}

/// A write, as far as ownership is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// Who writes.
    pub manager: &'a str,
    /// `v1`, `apps/v1`.
    pub api_version: &'a str,
    /// The subresource written through, or "".
    pub subresource: &'a str,
    /// What it cannot write.
    pub reset: Reset,
    /// When.
    pub now: Timestamp,
}

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as messages name it: `"kubectl" using apps/v1`.
    pub owner: String,
    /// `.spec.replicas`.
    pub path: String,
}

/// An apply that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields of it.
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The configuration has an element twice.
    #[error("{0}")]
    Duplicate(String),
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.owner, one.path
        );
    }
    let mut lines: Vec<String> = Vec::new();
    let mut last = "";
    for conflict in conflicts {
        if conflict.owner != last {
            lines.push(format!("conflicts with {}:", conflict.owner));
            last = &conflict.owner;
        }
        lines.push(format!("- {}", conflict.path));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}

impl Write<'_> {
    fn identity(&self, operation: Operation) -> Identity {
        Identity {
            manager: self.manager.to_string(),
            operation,
            api_version: self.api_version.to_string(),
            subresource: self.subresource.to_string(),
        }
    }

    /// Takes out what the endpoint does not write and what nobody owns.
    fn strip(&self, mut fields: FieldSet) -> FieldSet {
        match self.reset {
            Reset::Nothing => {}
            Reset::Status => fields.remove("f:status"),
            Reset::AllButStatus => fields.retain(&["f:status", "f:metadata"]),
        }
        strip_unowned(&mut fields);
        fields
    }
}

fn strip_unowned(fields: &mut FieldSet) {
    fields.remove("f:apiVersion");
    fields.remove("f:kind");
    fields.remove_fields("f:metadata", UNOWNED_METADATA);
}

/// The managers that a write begins with: those the client sent, where it sent valid ones, else
/// those of the live object. A list of one empty entry resets them.
fn begin(live: Option<&Value>, given: Option<&Value>) -> Entries {
    let stored = || live.map(Entries::stored).unwrap_or_default();
    let Some(given) = given.and_then(Value::as_array).map(Vec::as_slice) else {
        return stored();
    };
    if let Some(live) = live
        && given == live.list_at("/metadata/managedFields")
    {
        return stored();
    }
    if let [one] = given
        && one.as_object().is_some_and(serde_json::Map::is_empty)
    {
        return Entries::default();
    }
    match Entries::given(given) {
        Some(entries) if !entries.0.is_empty() => entries,
        _ => stored(),
    }
}

/// Owners after a create (`live` is `None`), update or patch. `new` is the object as it will be
/// written; `given` is the `managedFields` that the request carried.
pub fn update(
    live: Option<&Value>,
    new: &mut Value,
    given: Option<&Value>,
    root: TypeRef<'_>,
    write: &Write<'_>,
) {
    let mut entries = begin(live, given);
    new.remove_at(&["metadata", "managedFields"]);
    // Owners are tracked from the create on, or from the first apply.
    if live.is_some() && entries.0.is_empty() {
        return;
    }
    let empty = Value::Object(serde_json::Map::new());
    record(&mut entries, live.unwrap_or(&empty), new, root, write);
    entries.write(new);
}

fn strip_managed(object: &Value) -> Value {
    let mut out = object.clone();
    out.remove_at(&["metadata", "managedFields"]);
    out
}

/// Moves the changed fields to the writer.
fn record(entries: &mut Entries, old: &Value, new: &Value, root: TypeRef<'_>, write: &Write<'_>) {
    let compared = compare(old, new, root);
    if compared.is_same() {
        return;
    }
    let changed = compared.added.union(&compared.modified);
    for entry in &mut entries.0 {
        entry.fields = entry
            .fields
            .difference(&changed)
            .difference(&compared.removed);
    }
    let taken = write.strip(changed);
    if taken.is_empty() {
        return;
    }
    let identity = write.identity(Operation::Update);
    let own = match entries.get(&identity) {
        Some(entry) => entry.fields.union(&taken),
        None => taken,
    };
    entries.set(identity, own, write.now);
}

/// A configuration to apply.
#[derive(Debug, Clone, Copy)]
pub struct Apply<'a> {
    /// The object as it is.
    pub live: &'a Value,
    /// What is applied, already conforming to its type.
    pub config: &'a Value,
    /// Take fields from their owners.
    pub force: bool,
}

/// Applies a configuration; the result carries the new owners.
pub fn apply(
    request: Apply<'_>,
    root: TypeRef<'_>,
    write: &Write<'_>,
) -> Result<Value, ApplyError> {
    if let Some(duplicate) = merge::duplicate(request.config, root, "") {
        return Err(ApplyError::Duplicate(duplicate));
    }
    let first = apply_once(request, root, write);
    // What client-side apply owned, kubectl may take over.
    match first {
        Err(ApplyError::Conflicts(conflicts)) if write.manager == KUBECTL && !request.force => {
            let allowed = last_applied(request.live).map(|last| applied_fields(&last, root));
            let Some(allowed) = allowed else {
                return Err(ApplyError::Conflicts(conflicts));
            };
            let allowed = allowed.paths();
            let left: Vec<Conflict> = conflicts
                .into_iter()
                .filter(|conflict| !allowed.contains(&conflict.path))
                .collect();
            if left.is_empty() {
                apply_once(
                    Apply {
                        force: true,
                        ..request
                    },
                    root,
                    write,
                )
            } else {
                Err(ApplyError::Conflicts(left))
            }
        }
        other => other,
    }
}

fn last_applied(live: &Value) -> Option<Value> {
    let text = live
        .map_at("/metadata/annotations")?
        .get(LAST_APPLIED)?
        .as_str()?;
    serde_json::from_str(text).ok()
}

fn apply_once(
    request: Apply<'_>,
    root: TypeRef<'_>,
    write: &Write<'_>,
) -> Result<Value, ApplyError> {
    let mut entries = Entries::stored(request.live);
    let live = strip_managed(request.live);
    if entries.0.is_empty() {
        let before = Write {
            manager: BEFORE_FIRST_APPLY,
            subresource: "",
            reset: Reset::Nothing,
            ..*write
        };
        let empty = Value::Object(serde_json::Map::new());
        record(&mut entries, &empty, &live, root, &before);
    }
    let identity = write.identity(Operation::Apply);
    let previous = entries.get(&identity).cloned();
    let fields = write.strip(applied_fields(request.config, root));
    let mut merged = merge::merge(live.clone(), request.config, root);
    let mut others = Entries(
        entries
            .0
            .iter()
            .filter(|entry| entry.identity != identity)
            .cloned()
            .collect(),
    );
    if let Some(previous) = &previous {
        let keep = others.owned().union(&fields);
        merge::prune(&mut merged, &previous.fields, &keep, root);
    }
    let compared = compare(&live, &merged, root);
    let changed = compared.added.union(&compared.modified);
    let conflicts = conflicts_of(&others, &changed);
    if !request.force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(conflicts));
    }
    for entry in &mut others.0 {
        entry.fields = entry
            .fields
            .difference(&changed)
            .difference(&compared.removed);
    }
    match previous {
        // Nothing new: the time of the last change stays.
        Some(entry) if entry.fields == fields && compared.is_same() => others.0.push(entry),
        _ => others.set(identity, fields, write.now),
    }
    others.write(&mut merged);
    if write.manager == KUBECTL && last_applied(request.live).is_some() {
        refresh_last_applied(&mut merged, request.config);
    }
    Ok(merged)
}

fn conflicts_of(others: &Entries, changed: &FieldSet) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = others
        .0
        .iter()
        .flat_map(|entry| {
            let owner = owner_words(entry);
            entry
                .fields
                .intersection(changed)
                .paths()
                .into_iter()
                .map(move |path| Conflict {
                    owner: owner.clone(),
                    path,
                })
        })
        .collect();
    conflicts.sort_by(|a, b| (&a.owner, &a.path).cmp(&(&b.owner, &b.path)));
    conflicts
}

fn owner_words(entry: &Entry) -> String {
    let identity = &entry.identity;
    let mut words = format!("{:?}", identity.manager);
    if !identity.subresource.is_empty() {
        words.push_str(&format!(" with subresource {:?}", identity.subresource));
    }
    if identity.operation == Operation::Update {
        words.push_str(&format!(" using {}", identity.api_version));
    }
    words
}

/// `kubectl apply` without `--server-side` must see what was applied last.
fn refresh_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    config.remove_at(&["metadata", "managedFields"]);
    config.remove_at(&["metadata", "annotations", LAST_APPLIED]);
    let text = format!("{config}\n");
    object.set_at(
        &["metadata", "annotations", LAST_APPLIED],
        Value::from(text),
    );
}
