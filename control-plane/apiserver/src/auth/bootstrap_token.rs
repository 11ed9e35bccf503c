//! Bootstrap tokens: `ID.SECRET`, each a Secret `bootstrap-token-ID` of the type
//! `bootstrap.kubernetes.io/token` in kube-system. Whoever shows one may ask for a node's
//! certificate, and for nothing else unless a role says so.

use base64::{Engine, engine::general_purpose::STANDARD};
use hull_api::{ApiError, ObjectExt, kinds, time};
use serde_json::Value;

use super::UserInfo;
use crate::storage::Storage;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
/// Characters of the part that names the Secret.
const ID_CHARACTERS: usize = 6;
/// Characters of the part that is secret.
const SECRET_CHARACTERS: usize = 16;

/// Splits a token of this kind; `None`: it is of another kind.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, characters: usize| {
        text.len() == characters
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    (plain(id, ID_CHARACTERS) && plain(secret, SECRET_CHARACTERS)).then_some((id, secret))
}

/// Whether the token has the form of a bootstrap token.
pub(super) fn is_one(token: &str) -> bool {
    split(token).is_some()
}

/// The user of the token; `None`: there is no such token, or it may not be used for this.
pub(super) async fn user(storage: &Storage, token: &str) -> Result<Option<UserInfo>, ApiError> {
    let Some((id, secret)) = split(token) else {
        return Ok(None);
    };
    let name = format!("bootstrap-token-{id}");
    let found = storage.get(&kinds::SECRETS, NAMESPACE, &name).await?;
    Ok(found.and_then(|stored| accepted(&stored.object, id, secret, jiff::Timestamp::now())))
}

fn accepted(object: &Value, id: &str, secret: &str, now: jiff::Timestamp) -> Option<UserInfo> {
    let data = |key: &str| {
        let bytes = STANDARD
            .decode(object.get("data")?.get(key)?.as_str()?)
            .ok()?;
        String::from_utf8(bytes).ok()
    };
    let refused = |why: &str| {
        tracing::debug!(token = id, why, "bootstrap token refused");
        None
    };
    if object.str_at("/type") != TYPE || !object.str_at("/metadata/deletionTimestamp").is_empty() {
        return refused("the Secret is not a token's");
    }
    if data("token-id").as_deref() != Some(id) || !same(&data("token-secret")?, secret) {
        return refused("another secret");
    }
    if let Some(expiration) = data("expiration")
        && time::parse(&expiration).is_none_or(|end| end <= now)
    {
        return refused("expired");
    }
    if data("usage-bootstrap-authentication").as_deref() != Some("true") {
        return refused("not for authentication");
    }
    let extra = data("auth-extra-groups").unwrap_or_default();
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').filter(|group| !group.is_empty()) {
        // Others could be anybody's: system:masters is one.
        if !group.starts_with("system:bootstrappers:") {
            return refused("a group that is not below system:bootstrappers");
        }
        groups.push(group.to_owned());
    }
    Some(UserInfo::new(&format!("system:bootstrap:{id}"), groups))
}

/// Takes the same time wherever two secrets of one length differ.
fn same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one
            .bytes()
            .zip(other.bytes())
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: &str = "0123456789abcdef";

    fn secret(change: impl FnOnce(&mut Value)) -> Value {
        let mut object = json!({"type": TYPE, "data": {
            "token-id": "abcdef", "token-secret": SECRET, "expiration": "2030-01-01T00:00:00Z",
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:workers",
        }});
        change(&mut object);
        for value in object["data"].as_object_mut().unwrap().values_mut() {
            *value = STANDARD.encode(value.as_str().unwrap()).into();
        }
        object
    }

    fn check(object: &Value) -> Option<UserInfo> {
        let now = time::parse("2029-12-31T23:59:59Z").unwrap();
        accepted(object, "abcdef", SECRET, now)
    }

    #[test]
    fn a_token_stands_for_a_bootstrapper() {
        let user = check(&secret(|_| {})).unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        assert_eq!(
            user.groups,
            [
                "system:bootstrappers",
                "system:bootstrappers:workers",
                "system:authenticated"
            ]
        );
    }

    #[test]
    fn what_is_not_a_good_token_is_refused() {
        let changes: [fn(&mut Value); 8] = [
            |s| s["type"] = "Opaque".into(),
            |s| s["metadata"] = json!({"deletionTimestamp": "2029-01-01T00:00:00Z"}),
            |s| s["data"]["token-secret"] = "0123456789abcdeX".into(),
            |s| s["data"]["token-id"] = "abcdeg".into(),
            |s| s["data"]["expiration"] = "2029-12-31T23:59:59Z".into(),
            |s| s["data"]["expiration"] = "soon".into(),
            |s| s["data"]["usage-bootstrap-authentication"] = "false".into(),
            |s| s["data"]["auth-extra-groups"] = "system:masters".into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(check(&secret(change)), None, "{number}");
        }
    }

    #[test]
    fn other_tokens_are_told_apart_by_their_form() {
        assert!(is_one("abcdef.0123456789abcdef"));
        for other in [
            "",
            "abcdef",
            "a.b.c",
            "abcdeF.0123456789abcdef",
            "abcdef.0123456789abcde",
        ] {
            assert!(!is_one(other), "{other}");
        }
    }
}
