//! `Impersonate-User`, `-Group`, `-Uid` and `-Extra-KEY`: acting as somebody else, for those who
//! may `impersonate` each of the parts.

use http::HeaderMap;
use hull_api::ApiError;

use super::{UserInfo, service_account_groups};
use crate::{
    authorization::{self, Attributes, Authorizer},
    http::decode,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const EXTRA_GROUP: &str = "authentication.k8s.io";

fn text(value: &http::HeaderValue) -> Result<&str, ApiError> {
    value
        .to_str()
        .map_err(|_| ApiError::bad_request("an impersonation header is not plain text"))
}

/// The user that the headers name; `None`: they name nobody.
pub(crate) fn impersonate(
    authorizer: &Authorizer,
    user: &UserInfo,
    headers: &HeaderMap,
) -> Result<Option<UserInfo>, ApiError> {
    let name = headers.get(USER).map(text).transpose()?.unwrap_or("");
    let other = headers.contains_key(GROUP)
        || headers.contains_key(UID)
        || headers.keys().any(|key| key.as_str().starts_with(EXTRA));
    if name.is_empty() {
        if other {
            return Err(ApiError::bad_request(
                "requested impersonation of groups, uid or extra without impersonating a user",
            ));
        }
        return Ok(None);
    }
    let check = |attributes: Attributes<'_>| {
        let attributes = Attributes {
            verb: "impersonate",
            ..attributes
        };
        authorization::require(authorizer, user, &attributes)
    };
    let account = name
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    check(match account {
        Some((namespace, name)) => Attributes {
            resource: "serviceaccounts",
            namespace,
            name,
            ..Attributes::default()
        },
        None => Attributes {
            resource: "users",
            name,
            ..Attributes::default()
        },
    })?;
    let mut groups = Vec::new();
    for group in headers.get_all(GROUP) {
        let name = text(group)?;
        check(Attributes {
            resource: "groups",
            name,
            ..Attributes::default()
        })?;
        groups.push(name.to_string());
    }
    if groups.is_empty()
        && let Some((namespace, _)) = account
    {
        groups = service_account_groups(namespace);
    }
    let mut impersonated = if name == UserInfo::anonymous().name {
        UserInfo::anonymous()
    } else {
        UserInfo::new(name, groups)
    };
    if let Some(uid) = headers.get(UID) {
        let name = text(uid)?;
        check(Attributes {
            group: EXTRA_GROUP,
            resource: "uids",
            name,
            ..Attributes::default()
        })?;
        impersonated.uid = name.to_string();
    }
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix(EXTRA) else {
            continue;
        };
        let (key, name) = (decode(key, false), text(value)?);
        check(Attributes {
            group: EXTRA_GROUP,
            resource: "userextras",
            subresource: &key,
            name,
            ..Attributes::default()
        })?;
        impersonated
            .extra
            .entry(key.clone())
            .or_default()
            .push(name.to_string());
    }
    Ok(Some(impersonated))
}
