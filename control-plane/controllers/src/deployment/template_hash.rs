//! The hash that tells a template's pods from another's.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// The label that carries it.
pub(super) const LABEL: &str = "pod-template-hash";

/// No vowels, and no digits or letters that look like others: a hash never spells a word.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over the template's JSON and the collision count.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    let mut text = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        text.extend(collisions.to_le_bytes());
    }
    let mut hash: u32 = 0x811c_9dc5;
    for byte in text {
        hash ^= u32::from(byte);
        hash = hash.wrapping_mul(0x0100_0193);
    }
    hash.to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// The template without the hash label.
pub(super) fn without_hash(template: &PodTemplateSpec) -> PodTemplateSpec {
    let mut template = template.clone();
    if let Some(meta) = &mut template.metadata {
        if let Some(labels) = &mut meta.labels {
            labels.remove(LABEL);
        }
        if meta
            .labels
            .as_ref()
            .is_some_and(std::collections::BTreeMap::is_empty)
        {
            meta.labels = None;
        }
        meta.creation_timestamp = None;
    }
    template
}
