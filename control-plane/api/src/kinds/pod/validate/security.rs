//! Security contexts, of pods and of containers.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::pod::volumes::validate_descending,
};

/// Longest name of a sysctl, bytes.
const SYSCTL_MAX: usize = 253;
const SYSCTL_TEXT: &str = "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// Longest path of an AppArmor profile, bytes: PATH_MAX without the zero.
const PROFILE_MAX: usize = 4095;
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// Checks `spec.securityContext` and what it does not go with.
pub(super) fn validate_pod_context(spec: &Value, path: &Path, errors: &mut Errors) {
    let context = path.child("securityContext");
    for field in ["runAsUser", "runAsGroup", "fsGroup"] {
        let id = spec.int_at(&format!("/securityContext/{field}"));
        validate_id(id, &context.child(field), errors);
    }
    let groups = spec.list_at("/securityContext/supplementalGroups");
    for (index, group) in groups.iter().enumerate() {
        let path = context.child("supplementalGroups").index(index);
        validate_id(group.as_i64(), &path, errors);
    }
    if spec.bool_at("/shareProcessNamespace") && spec.bool_at("/hostPID") {
        errors.invalid(
            &context.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
    validate_sysctls(spec, &context.child("sysctls"), errors);
    for (field, supported) in [
        ("fsGroupChangePolicy", ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", ["Merge", "Strict"]),
        ("seLinuxChangePolicy", ["MountOption", "Recursive"]),
    ] {
        if let Some(value) = spec.pointer(&format!("/securityContext/{field}")) {
            let value = value.as_str().unwrap_or("");
            errors.check_supported(&context.child(field), value, &supported);
        }
    }
    let given = spec.get("securityContext").unwrap_or(&Value::Null);
    validate_profiles(given, &context, errors);
    validate_host_users(spec, path, errors);
}

/// Checks a container's security context.
pub(super) fn validate_context(
    container: &Value,
    host_users: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(context) = container.get("securityContext") else {
        return;
    };
    for field in ["runAsUser", "runAsGroup"] {
        validate_id(
            context.int_at(&format!("/{field}")),
            &path.child(field),
            errors,
        );
    }
    if let Some(mount) = context.get("procMount").and_then(Value::as_str) {
        let path = path.child("procMount");
        if mount == "Unmasked" && host_users {
            errors.invalid(&path, mount, "`hostUsers` must be false to use `Unmasked`");
        }
        errors.check_supported(&path, mount, &["Default", "Unmasked"]);
    }
    validate_profiles(context, path, errors);
    if context.get("allowPrivilegeEscalation") != Some(&Value::Bool(false)) {
        return;
    }
    let mut refused = |with: &str| {
        let why = format!("cannot set `allowPrivilegeEscalation` to false and {with}");
        errors.invalid(path, context.clone(), why);
    };
    if context.bool_at("/privileged") {
        refused("`privileged` to true");
    }
    let added = context.list_at("/capabilities/add");
    if added.iter().any(|name| name == "CAP_SYS_ADMIN") {
        refused("`capabilities.Add` CAP_SYS_ADMIN");
    }
}

fn validate_id(id: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(id) = id
        && !(0..=i64::from(i32::MAX)).contains(&id)
    {
        errors.invalid(path, id, "must be between 0 and 2147483647, inclusive");
    }
}

fn validate_sysctls(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, sysctl) in spec.list_at("/securityContext/sysctls").iter().enumerate() {
        let path = path.index(index).child("name");
        let name = sysctl.str_at("/name");
        if name.is_empty() {
            errors.required(&path, "");
        } else if !is_sysctl(name) {
            errors.invalid(&path, name, SYSCTL_TEXT);
        } else if !seen.insert(name) {
            errors.duplicate(&path, name);
        }
        let name = name.replace('/', ".");
        if spec.bool_at("/hostNetwork") && name.starts_with("net.") {
            let why = "may not be specified when 'hostNetwork' is true";
            errors.invalid(&path, sysctl.str_at("/name"), why);
        } else if spec.bool_at("/hostIPC") && is_ipc(&name) {
            let why = "may not be specified when 'hostIPC' is true";
            errors.invalid(&path, sysctl.str_at("/name"), why);
        }
    }
}

/// Sysctls of an IPC namespace.
fn is_ipc(name: &str) -> bool {
    name == "kernel.sem"
        || ["kernel.shm", "kernel.msg", "fs.mqueue."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

fn is_sysctl(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(|byte| inner(*byte))
                && bytes.last().is_some_and(|byte| inner(*byte))
                && bytes
                    .iter()
                    .all(|byte| inner(*byte) || b"-_".contains(byte))
        })
}

/// The seccomp and the AppArmor profile of a context.
fn validate_profiles(context: &Value, path: &Path, errors: &mut Errors) {
    if let Some(profile) = context.get("seccompProfile") {
        validate_profile(profile, "seccomp", &path.child("seccompProfile"), errors);
    }
    if let Some(profile) = context.get("appArmorProfile") {
        validate_profile(profile, "AppArmor", &path.child("appArmorProfile"), errors);
    }
}

fn validate_profile(profile: &Value, what: &str, path: &Path, errors: &mut Errors) {
    let kind = profile.str_at("/type");
    let local = profile.get("localhostProfile").and_then(Value::as_str);
    let at = path.child("localhostProfile");
    match kind {
        "" => {
            let field = if what == "seccomp" {
                "seccompProfile"
            } else {
                "appArmorProfile"
            };
            let why = format!("type is required when {field} is set");
            errors.required(&path.child("type"), &why);
        }
        _ => errors.check_supported(&path.child("type"), kind, &PROFILE_TYPES),
    }
    match (kind, local) {
        ("Localhost", None | Some("")) => {
            errors.required(&at, &format!("must be set when {what} type is Localhost"));
        }
        ("Localhost", Some(file)) if what == "seccomp" => validate_descending(file, &at, errors),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errors.invalid(&at, name, "must not be padded with whitespace");
            }
            if name.len() > PROFILE_MAX {
                errors.too_long(&at, PROFILE_MAX);
            }
        }
        (_, Some(file)) => {
            let why = format!("can only be set when {what} type is Localhost");
            errors.invalid(&at, file, why);
        }
        (_, None) => {}
    }
}

/// A pod in a user namespace of its own cannot be in other namespaces of the host.
fn validate_host_users(spec: &Value, path: &Path, errors: &mut Errors) {
    if spec.get("hostUsers") != Some(&Value::Bool(false)) {
        return;
    }
    for (field, shown) in [
        ("hostNetwork", "hostNetwork"),
        ("hostPID", "HostPID"),
        ("hostIPC", "HostIPC"),
    ] {
        if spec.bool_at(&format!("/{field}")) {
            errors.forbidden(&path.child(shown), "when `pod.Spec.HostUsers` is false");
        }
    }
}
