//! Identifiers: 32 hexadecimal digits, which a client may shorten to any unique prefix.

use rand::RngCore;
use std::collections::BTreeMap;

/// Why a (possibly shortened) id stands for nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LookupError {
    /// Nothing begins with it.
    #[error("not found")]
    NotFound,
    /// Several do.
    #[error("the id prefix {0:?} is ambiguous")]
    Ambiguous(String),
}

/// A new random id.
pub fn generate() -> String {
    let mut bytes = [0u8; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 12 digits: for interface names and logs.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Finds the entry whose key is `id` or the only one that begins with it.
pub fn resolve<T: Clone>(map: &BTreeMap<String, T>, id: &str) -> Result<T, LookupError> {
    if id.is_empty() {
        return Err(LookupError::NotFound);
    }
    if let Some(found) = map.get(id) {
        return Ok(found.clone());
    }
    let mut candidates = map
        .range(id.to_string()..)
        .take_while(|(key, _)| key.starts_with(id));
    match (candidates.next(), candidates.next()) {
        (Some((_, found)), None) => Ok(found.clone()),
        (Some(_), Some(_)) => Err(LookupError::Ambiguous(id.to_string())),
        (None, _) => Err(LookupError::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_exact_ids_and_unique_prefixes_only() {
        let map: BTreeMap<String, u8> = [
            ("abc".into(), 1),
            ("abd".into(), 2),
            ("ab".into(), 3),
            ("x".into(), 4),
        ]
        .into();
        assert_eq!(resolve(&map, "ab"), Ok(3));
        assert_eq!(resolve(&map, "abc"), Ok(1));
        assert_eq!(resolve(&map, "a"), Err(LookupError::Ambiguous("a".into())));
        assert_eq!(resolve(&map, "x"), Ok(4));
        assert_eq!(resolve(&map, "y"), Err(LookupError::NotFound));
        assert_eq!(resolve(&map, ""), Err(LookupError::NotFound));
    }

    #[test]
    fn generated_ids_are_32_hex_digits_and_differ() {
        let (a, b) = (generate(), generate());
        assert_eq!(a.len(), 32);
        assert!(a.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }
}
