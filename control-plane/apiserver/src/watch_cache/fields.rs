//! Which fields of a stored object are looked for when it comes in.

use std::{collections::HashMap, sync::LazyLock};

use hull_api::{Kind, Registry, registry::Keeping};
use serde_json::Value;

/// What every object is asked for.
const COMMON: [&str; 4] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.deletionTimestamp",
];
/// Most fields of a resource: the scan keeps a bit for each.
const MOST: usize = u32::BITS as usize;

/// A field that is simply at its path.
#[derive(Debug)]
pub(super) struct Field {
    /// As selectors name it.
    pub name: &'static str,
    /// Map keys from the root.
    pub path: Vec<&'static str>,
}

/// The fields of a resource.
#[derive(Debug)]
pub(super) struct Fields(pub Vec<Field>);

static COMMON_ONLY: LazyLock<Fields> = LazyLock::new(|| Fields::new(&COMMON));

/// By storage name, for resources that have more than the common ones.
static OF_RESOURCES: LazyLock<HashMap<&'static str, Fields>> = LazyLock::new(|| {
    let mut names: HashMap<&'static str, Vec<&'static str>> = HashMap::new();
    for kind in Registry::get().kinds() {
        if kind.keeping != Keeping::Stored || !kind.is_served_as_stored() {
            continue;
        }
        for name in kind.strategy.selectable_fields() {
            let known = names.entry(kind.storage).or_insert_with(|| COMMON.to_vec());
            if is_plain(kind, name) && !known.contains(name) && known.len() < MOST {
                known.push(name);
            }
        }
    }
    let resources = names.into_iter();
    resources
        .map(|(storage, names)| (storage, Fields::new(&names)))
        .collect()
});

/// Whether a selector compares with what is at the field's path.
fn is_plain(kind: &Kind, name: &str) -> bool {
    kind.strategy.field_value(&Value::Null, name).is_none()
}

impl Fields {
    fn new(names: &[&'static str]) -> Self {
        let field = |name: &&'static str| Field {
            name,
            path: name.split('.').collect(),
        };
        Fields(names.iter().map(field).collect())
    }

    /// Those of the resource that a key belongs to.
    pub(super) fn of_key(key: &str) -> &'static Fields {
        let rest = key.strip_prefix("/registry/").unwrap_or("");
        let mut ends = rest.match_indices('/').map(|(at, _)| at).take(2);
        ends.find_map(|end| OF_RESOURCES.get(&rest[..end]))
            .unwrap_or(&COMMON_ONLY)
    }

    /// The place of a field, if selectors of the kind find it at its path.
    pub(super) fn position(&self, kind: &Kind, name: &str) -> Option<usize> {
        let at = self.0.iter().position(|field| field.name == name)?;
        is_plain(kind, name).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use hull_api::kinds::{CONFIG_MAPS, EVENTS, PODS};

    use super::*;

    #[test]
    fn fields_are_those_that_selectors_find_at_their_path() {
        let pods = Fields::of_key(&PODS.key("a", "b"));
        assert!(pods.position(&PODS, "spec.nodeName").is_some());
        assert!(pods.position(&PODS, "metadata.name").is_some());
        // Made of several values, and one that stands for its absence.
        assert!(pods.position(&PODS, "status.podIPs").is_none());
        assert!(pods.position(&PODS, "spec.hostNetwork").is_none());
        let events = Fields::of_key(&EVENTS.key("a", "b"));
        assert!(events.position(&EVENTS, "involvedObject.name").is_some());
        for key in [CONFIG_MAPS.key("a", "b"), "/elsewhere".to_owned()] {
            assert_eq!(Fields::of_key(&key).0.len(), COMMON.len());
        }
    }
}
