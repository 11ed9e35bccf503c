//! Names that come from the host: container ids, exec ids and volume names become
//! path components, cgroup names and words of a stream header.

use hull_agent_protocol::MAX_NAME;

/// A name that may not be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid {what} {name:?}: {why}")]
pub struct InvalidName {
    /// What the name is for.
    pub what: &'static str,
    /// The name, shortened.
    pub name: String,
    /// What is wrong with it.
    pub why: &'static str,
}

/// Checks that `name` is one path component of at most [`MAX_NAME`] bytes made of
/// ASCII letters, digits, `_`, `.`, `+` and `-`, and not `.`, `..` or `-`.
///
/// # Errors
/// [`InvalidName`] says what is wrong.
pub fn check(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    let why = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_NAME {
        "it is longer than 128 bytes"
    } else if matches!(name, "." | ".." | "-") {
        "it is reserved"
    } else if !name.bytes().all(allowed) {
        "only ASCII letters, digits, '_', '.', '+' and '-' are allowed"
    } else {
        return Ok(());
    };
    Err(InvalidName {
        what,
        name: name.chars().take(MAX_NAME).collect(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for name in [
            "", ".", "..", "-", "a/b", "/", "a b", "a\n", "é", "a:b", "a\0",
        ] {
            assert!(check("container id", name).is_err(), "{name:?}");
        }
        assert!(check("container id", &"x".repeat(129)).is_err());
    }

    #[test]
    fn usual_ids_are_accepted() {
        for name in ["a", "..data", "web-1_2.3+4", &"x".repeat(128)] {
            assert_eq!(check("container id", name), Ok(()));
        }
    }
}
