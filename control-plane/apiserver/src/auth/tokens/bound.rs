//! Whether an object still holds the tokens that are bound to it.

use hull_api::time;

/// Seconds that a token outlives the deletion of what it is bound to, so that a pod can shut
/// down in order.
const LEEWAY_SECONDS: i64 = 60;

/// The object is the one the token names, and not gone for longer than the leeway.
/// The object is given by its uid and `metadata.deletionTimestamp`, which may be "".
pub(super) fn holds((found, deleted): (&str, &str), uid: &str, now: i64) -> bool {
    if found != uid {
        return false;
    }
    match time::parse(deleted) {
        Some(deleted) => now < deleted.as_second() + LEEWAY_SECONDS,
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_object_holds_its_tokens_for_a_minute() {
        let object = ("u", "1970-01-01T00:01:40Z");
        assert!(holds(object, "u", 100));
        assert!(holds(object, "u", 159));
        assert!(!holds(object, "u", 160));
        assert!(!holds(object, "v", 100));
        assert!(holds(("u", ""), "u", 0));
    }
}
