//! What a token says.

use std::collections::BTreeMap;

use hull_api::ObjectExt;
use serde_json::{Map, Value, json};

use super::ISSUER;
use crate::UserInfo;

const PRIVATE: &str = "kubernetes.io";
const CREDENTIAL: &str = "authentication.kubernetes.io/credential-id";

/// An object by name and uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binding {
    pub name: String,
    pub uid: String,
}

impl Binding {
    pub(crate) fn of(object: &Value) -> Self {
        Binding {
            name: object.name().to_string(),
            uid: object.uid().to_string(),
        }
    }

    fn to_value(&self) -> Value {
        json!({"name": self.name, "uid": self.uid})
    }

    fn parse(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_string);
        Some(Binding {
            name: text("name")?,
            uid: text("uid")?,
        })
    }
}

/// What a new token is to be.
pub(crate) struct Issue {
    pub namespace: String,
    pub account: Binding,
    pub audiences: Vec<String>,
    /// Seconds from now.
    pub lifetime: i64,
    pub pod: Option<Binding>,
    pub secret: Option<Binding>,
    pub node: Option<Binding>,
}

/// The claims of a token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub id: String,
    pub namespace: String,
    pub account: Binding,
    pub audiences: Vec<String>,
    pub issued: i64,
    pub not_before: i64,
    pub expires: i64,
    pub pod: Option<Binding>,
    pub secret: Option<Binding>,
    pub node: Option<Binding>,
}

impl Claims {
    pub(crate) fn new(issue: Issue, now: jiff::Timestamp) -> Self {
        let now = now.as_second();
        Claims {
            id: uuid::Uuid::new_v4().to_string(),
            namespace: issue.namespace,
            account: issue.account,
            audiences: issue.audiences,
            issued: now,
            not_before: now,
            expires: now.saturating_add(issue.lifetime),
            pod: issue.pod,
            secret: issue.secret,
            node: issue.node,
        }
    }

    fn subject(&self) -> String {
        format!(
            "system:serviceaccount:{}:{}",
            self.namespace, self.account.name
        )
    }

    pub(super) fn to_value(&self) -> Value {
        let mut private = Map::new();
        private.insert("namespace".into(), json!(self.namespace));
        private.insert("serviceaccount".into(), self.account.to_value());
        for (key, binding) in [
            ("pod", &self.pod),
            ("secret", &self.secret),
            ("node", &self.node),
        ] {
            if let Some(binding) = binding {
                private.insert(key.into(), binding.to_value());
            }
        }
        json!({
            "iss": ISSUER,
            "sub": self.subject(),
            "aud": self.audiences,
            "iat": self.issued,
            "nbf": self.not_before,
            "exp": self.expires,
            "jti": self.id,
            PRIVATE: private,
        })
    }

    /// Reads the claims of a verified token; `None`: not the claims of a service account.
    pub(super) fn parse(value: &Value) -> Option<Self> {
        if value.get("iss")?.as_str()? != ISSUER {
            return None;
        }
        let private = value.get(PRIVATE)?;
        let binding = |key: &str| private.get(key).map(Binding::parse);
        let claims = Claims {
            id: value.get("jti")?.as_str()?.to_string(),
            namespace: private.get("namespace")?.as_str()?.to_string(),
            account: binding("serviceaccount")??,
            audiences: value
                .get("aud")?
                .as_array()?
                .iter()
                .map(|audience| audience.as_str().map(str::to_string))
                .collect::<Option<_>>()?,
            issued: value.get("iat")?.as_i64()?,
            not_before: value.get("nbf")?.as_i64()?,
            expires: value.get("exp")?.as_i64()?,
            pod: match binding("pod") {
                Some(pod) => Some(pod?),
                None => None,
            },
            secret: match binding("secret") {
                Some(secret) => Some(secret?),
                None => None,
            },
            node: match binding("node") {
                Some(node) => Some(node?),
                None => None,
            },
        };
        (value.get("sub")?.as_str()? == claims.subject()).then_some(claims)
    }

    /// Who shows this token.
    pub(super) fn user(&self) -> UserInfo {
        let mut user = UserInfo::service_account(&self.namespace, &self.account.name);
        user.uid.clone_from(&self.account.uid);
        let mut extra = BTreeMap::new();
        extra.insert(CREDENTIAL.to_string(), vec![format!("JTI={}", self.id)]);
        for (key, binding) in [("pod", &self.pod), ("node", &self.node)] {
            if let Some(binding) = binding {
                extra.insert(
                    format!("authentication.kubernetes.io/{key}-name"),
                    vec![binding.name.clone()],
                );
                extra.insert(
                    format!("authentication.kubernetes.io/{key}-uid"),
                    vec![binding.uid.clone()],
                );
            }
        }
        user.extra = extra;
        user
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_come_back_whole() {
        let binding = |name: &str| Binding {
            name: name.into(),
            uid: format!("{name}-uid"),
        };
        let claims = Claims::new(
            Issue {
                namespace: "ns".into(),
                account: binding("bot"),
                audiences: vec!["a".into(), "b".into()],
                lifetime: 600,
                pod: Some(binding("p")),
                secret: None,
                node: Some(binding("n")),
            },
            jiff::Timestamp::UNIX_EPOCH,
        );
        assert_eq!(claims.expires, 600);
        assert_eq!(Claims::parse(&claims.to_value()), Some(claims.clone()));
        let user = claims.user();
        assert_eq!(user.name, "system:serviceaccount:ns:bot");
        assert!(user.in_group("system:serviceaccounts:ns"));
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);
        let mut other = claims.to_value();
        other["sub"] = json!("system:serviceaccount:ns:admin");
        assert_eq!(
            Claims::parse(&other),
            None,
            "the subject must fit the claims"
        );
        for bad in [json!({}), json!([]), json!({"iss": ISSUER})] {
            assert_eq!(Claims::parse(&bad), None);
        }
    }
}
