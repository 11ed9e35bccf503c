//! A pod's volumes: plugins that are gone, and files of one volume that get in each other's way.

use serde_json::Value;

use super::{Warnings, storage};
use crate::{ObjectExt, field::Path};

/// `path` is that of the pod's spec.
pub(super) fn of_spec(spec: &Value, path: &Path, out: &mut Warnings) {
    let volumes = spec.list_at("/volumes");
    let path = path.child("volumes");
    for (index, volume) in volumes.iter().enumerate() {
        let path = path.index(index);
        if volume.get("gitRepo").is_some_and(Value::is_object) {
            out.at(&path.child("gitRepo"), "deprecated in v1.11");
        }
        storage::gone_plugins(volume, &path, out);
        let claim = volume.pointer("/ephemeral/volumeClaimTemplate/spec");
        let path = path.child("ephemeral.volumeClaimTemplate.spec");
        storage::of_claim_spec(claim, &path, out);
    }
    for volume in volumes {
        overlaps_of(volume, out);
    }
}

/// A volume's files that have the same path, or of which one is where another has its folder.
fn overlaps_of(volume: &Value, out: &mut Warnings) {
    let name = volume.str_at("/name");
    for (field, what, named) in [
        ("configMap", "ConfigMap", "/name"),
        ("secret", "Secret", "/secretName"),
        ("downwardAPI", "DownwardAPI", ""),
    ] {
        if let Some(source) = volume.get(field) {
            let whose = source_name(what, source, named);
            let title = format!("volume {name:?} ({whose}): overlapping paths");
            overlaps(&[], &item_paths(source), &title, out);
        }
    }
    let mut before: Vec<&str> = Vec::new();
    for source in volume.list_at("/projected/sources") {
        if source
            .as_object()
            .is_none_or(|source| source.values().all(Value::is_null))
        {
            out.tell(format!(
                "volume {name:?} (Projected) has no sources provided"
            ));
            continue;
        }
        let (whose, mut paths) = projected(source);
        let title = format!("volume {name:?} (Projected {whose}): overlapping paths");
        overlaps(&before, &paths, &title, out);
        before.append(&mut paths);
    }
}

fn source_name(what: &str, source: &Value, named: &str) -> String {
    match named {
        "" => what.to_owned(),
        pointer => format!("{what} {:?}", source.str_at(pointer)),
    }
}

fn item_paths(source: &Value) -> Vec<&str> {
    let items = source.list_at("/items").iter();
    items.map(|item| item.str_at("/path")).collect()
}

/// What a source of a projected volume is, and its files.
fn projected(source: &Value) -> (String, Vec<&str>) {
    for (field, what, named) in [
        ("configMap", "ConfigMap", "/name"),
        ("secret", "Secret", "/name"),
        ("downwardAPI", "DownwardAPI", ""),
    ] {
        if let Some(source) = source.get(field) {
            return (source_name(what, source, named), item_paths(source));
        }
    }
    if let Some(source) = source.get("clusterTrustBundle") {
        let named = if source.get("name").is_some() {
            "/name"
        } else {
            "/signerName"
        };
        let whose = source_name("ClusterTrustBundle", source, named);
        return (whose, vec![source.str_at("/path")]);
    }
    let token = source.get("serviceAccountToken");
    let path = token.map(|source| source.str_at("/path"));
    ("ServiceAccountToken".to_owned(), path.into_iter().collect())
}

fn overlaps(before: &[&str], paths: &[&str], title: &str, out: &mut Warnings) {
    let mut seen: Vec<&str> = before
        .iter()
        .map(|path| path.trim_end_matches('/'))
        .collect();
    for path in paths {
        let path = path.trim_end_matches('/');
        if let Some(other) = seen.iter().find(|other| overlap(path, other)) {
            out.tell(format!("{title}: {path:?} with {other:?}"));
        }
        seen.push(path);
    }
}

fn overlap(one: &str, other: &str) -> bool {
    let is_in = |inner: &str, outer: &str| {
        let rest = inner.strip_prefix(outer);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    !one.is_empty() && !other.is_empty() && (is_in(one, other) || is_in(other, one))
}
