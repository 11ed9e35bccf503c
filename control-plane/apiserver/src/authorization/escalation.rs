//! Nobody grants what they do not have: the checks on writes of roles and bindings.

use hull_api::{
    ApiError, Kind, ObjectExt,
    kinds::rbac::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, ROLE_BINDINGS, ROLES},
};
use serde_json::Value;

use super::{
    Attributes, Authorizer, Rule, is_master,
    rules::{compact, uncovered},
};
use crate::UserInfo;

/// Checks a role or binding that is about to be written; other kinds pass.
pub(crate) fn check_grant(
    authorizer: &Authorizer,
    user: &UserInfo,
    kind: &Kind,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    if kind.group != GROUP || is_master(user) {
        return Ok(());
    }
    if std::ptr::eq(kind, &raw const ROLES) || std::ptr::eq(kind, &raw const CLUSTER_ROLES) {
        return check_role(authorizer, user, kind, new, old);
    }
    if std::ptr::eq(kind, &raw const ROLE_BINDINGS)
        || std::ptr::eq(kind, &raw const CLUSTER_ROLE_BINDINGS)
    {
        return check_binding(authorizer, user, kind, new, old);
    }
    Ok(())
}

fn may(
    authorizer: &Authorizer,
    user: &UserInfo,
    (verb, resource): (&str, &str),
    namespace: &str,
    name: &str,
) -> bool {
    let attributes = Attributes {
        verb,
        group: GROUP,
        resource,
        namespace,
        name,
        ..Attributes::default()
    };
    authorizer.authorize(user, &attributes).allowed
}

fn check_role(
    authorizer: &Authorizer,
    user: &UserInfo,
    kind: &Kind,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let same = |pointer: &str| old.is_some_and(|old| old.pointer(pointer) == new.pointer(pointer));
    if same("/rules") && same("/aggregationRule") {
        return Ok(());
    }
    if may(
        authorizer,
        user,
        ("escalate", kind.plural),
        new.namespace(),
        new.name(),
    ) {
        return Ok(());
    }
    if new.get("aggregationRule").is_some() && !same("/aggregationRule") {
        let owned = authorizer.rules_of(user, "");
        let all = [Rule::everything(), Rule::every_path()];
        if !uncovered(&owned, &all).is_empty() {
            return Err(ApiError::forbidden(
                kind.resource(),
                new.name(),
                "must have cluster-admin privileges to use an aggregationRule",
            ));
        }
    }
    let rules = Rule::of_role(new);
    refuse_uncovered(authorizer, user, kind, new, &rules)
}

fn check_binding(
    authorizer: &Authorizer,
    user: &UserInfo,
    kind: &Kind,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let same = |pointer: &str| old.is_some_and(|old| old.pointer(pointer) == new.pointer(pointer));
    if same("/roleRef") && same("/subjects") {
        return Ok(());
    }
    let role_kind = new.str_at("/roleRef/kind");
    let role = if role_kind == ROLES.kind {
        &ROLES
    } else {
        &CLUSTER_ROLES
    };
    let name = new.str_at("/roleRef/name");
    if may(
        authorizer,
        user,
        ("bind", role.plural),
        new.namespace(),
        name,
    ) {
        return Ok(());
    }
    let Some(rules) = authorizer.rules_of_role(role_kind, new.namespace(), name) else {
        return Err(ApiError::not_found(role.resource(), name));
    };
    refuse_uncovered(authorizer, user, kind, new, &rules)
}

fn refuse_uncovered(
    authorizer: &Authorizer,
    user: &UserInfo,
    kind: &Kind,
    object: &Value,
    wanted: &[Rule],
) -> Result<(), ApiError> {
    let owned = authorizer.rules_of(user, object.namespace());
    let missing = uncovered(&owned, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = missing.iter().map(compact).collect();
    Err(ApiError::forbidden(
        kind.resource(),
        object.name(),
        &format!(
            "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            user.groups,
            lines.join("\n")
        ),
    ))
}
