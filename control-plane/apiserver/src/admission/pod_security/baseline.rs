//! The baseline level: no known way out of the pod.

use hull_api::ObjectExt;
use serde_json::Value;

use super::{
    Violation, broken, containers, distinct, has_own_users, named, plural, quoted, subject,
    subjects,
};

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Each with the minor version that allows it first.
const SAFE_SYSCTLS: &[(&str, u32)] = &[
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_rmem", 32),
    ("net.ipv4.tcp_wmem", 32),
];
/// Each with the minor version that allows it first.
const SELINUX_TYPES: &[(&str, u32)] = &[
    ("", 0),
    ("container_t", 0),
    ("container_init_t", 0),
    ("container_kvm_t", 0),
    ("container_engine_t", 31),
];
/// Places of a container that call an address.
const CALLS: [&str; 5] = [
    "/livenessProbe",
    "/readinessProbe",
    "/startupProbe",
    "/lifecycle/postStart",
    "/lifecycle/preStop",
];

/// What the level forbids in version 1.`minor`. The rules that the restricted level has in a
/// stricter form are left to it when `restricted`.
pub(super) fn check(spec: &Value, minor: u32, restricted: bool) -> Vec<Violation> {
    let applies = |since: u32| minor >= since;
    let stricter = |since: u32| restricted && minor >= since;
    let rule = |applies: bool, found: fn(&Value) -> Option<String>| {
        if applies { found(spec) } else { None }
    };
    let app_armor = app_armor(spec);
    broken([
        (app_armor.0, app_armor.1),
        (
            "non-default capabilities",
            rule(!stricter(22), capabilities),
        ),
        ("host namespaces", host_namespaces(spec)),
        ("hostPath volumes", rule(!restricted, host_paths)),
        ("hostPort", host_ports(spec)),
        ("probe or lifecycle host", rule(applies(34), called_hosts)),
        ("privileged", privileged(spec)),
        (
            "procMount",
            // From 1.35 on a pod with users of its own may, and the restricted level looks itself.
            rule(
                !(stricter(35) || applies(35) && has_own_users(spec)),
                proc_mount,
            ),
        ),
        ("seLinuxOptions", selinux(spec, minor)),
        (
            "seccompProfile",
            rule(applies(19) && !stricter(19), unconfined_seccomp),
        ),
        ("forbidden sysctls", sysctls(spec, minor)),
        ("hostProcess", host_process(spec)),
    ])
}

/// Details about the containers that fulfil a condition.
fn of_containers(spec: &Value, words: &str, wrong: impl Fn(&Value) -> bool) -> Option<String> {
    let names = named(spec, wrong);
    (!names.is_empty()).then(|| format!("{} {words}", subject(&names)))
}

fn host_namespaces(spec: &Value) -> Option<String> {
    let used: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec.bool_at(&format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    (!used.is_empty()).then(|| used.join(", "))
}

fn privileged(spec: &Value) -> Option<String> {
    let words = "must not set securityContext.privileged=true";
    of_containers(spec, words, |container| {
        container.bool_at("/securityContext/privileged")
    })
}

fn capabilities(spec: &Value) -> Option<String> {
    let wrong = |container: &Value| -> Vec<String> {
        container
            .list_at("/securityContext/capabilities/add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !DEFAULT_CAPABILITIES.contains(name))
            .map(str::to_string)
            .collect()
    };
    let all: Vec<String> = containers(spec).flat_map(wrong).collect();
    let words = format!(
        "must not include {} in securityContext.capabilities.add",
        quoted(all.iter().map(String::as_str))
    );
    of_containers(spec, &words, |container| !wrong(container).is_empty())
}

fn host_paths(spec: &Value) -> Option<String> {
    let names: Vec<String> = spec
        .list_at("/volumes")
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| format!("{:?}", volume.str_at("/name")))
        .collect();
    let word = plural(names.len(), "volume", "volumes");
    (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
}

fn host_ports(spec: &Value) -> Option<String> {
    let ports = |container: &Value| -> Vec<String> {
        container
            .list_at("/ports")
            .iter()
            .filter_map(|port| port.int_at("/hostPort"))
            .filter(|port| *port != 0)
            .map(|port| port.to_string())
            .collect()
    };
    let names = named(spec, |container| !ports(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let mut all: Vec<String> = containers(spec).flat_map(ports).collect();
    all.sort();
    all.dedup();
    Some(format!(
        "{} {} {} {}",
        subject(&names),
        plural(names.len(), "uses", "use"),
        plural(all.len(), "hostPort", "hostPorts"),
        all.join(", ")
    ))
}

/// The node's agent makes these calls: a host of the pod's choice is one that it reaches in the
/// agent's place.
fn called_hosts(spec: &Value) -> Option<String> {
    let hosts = |container: &Value| -> Vec<String> {
        CALLS
            .iter()
            .flat_map(|place| ["httpGet", "tcpSocket"].map(|how| format!("{place}/{how}/host")))
            .map(|pointer| container.str_at(&pointer).to_string())
            .filter(|host| !host.is_empty())
            .collect()
    };
    let mut names = named(spec, |container| !hosts(container).is_empty());
    if names.is_empty() {
        return None;
    }
    names.sort();
    let all: Vec<String> = containers(spec).flat_map(hosts).collect();
    let all = distinct(all.iter().map(String::as_str));
    Some(format!(
        "{} {} {} {}",
        subject(&names),
        plural(names.len(), "uses", "use"),
        plural(
            all.len(),
            "probe or lifecycle host",
            "probe or lifecycle hosts"
        ),
        all.join(", ")
    ))
}

/// Containers see more of `/proc` than they should.
pub(super) fn proc_mount(spec: &Value) -> Option<String> {
    let mount = |container: &Value| container.str_at("/securityContext/procMount").to_string();
    let wrong = |container: &Value| !matches!(mount(container).as_str(), "" | "Default");
    let values: Vec<String> = containers(spec)
        .filter(|one| wrong(one))
        .map(mount)
        .collect();
    let words = format!(
        "must not set securityContext.procMount to {}",
        quoted(values.iter().map(String::as_str))
    );
    of_containers(spec, &words, wrong)
}

/// Who sets a profile of some kind to a type that is not allowed, and the types.
pub(super) fn profiles(spec: &Value, pointer: &str) -> Option<(String, Vec<String>)> {
    let wrong = |object: &Value| {
        let kind = object.str_at(pointer);
        !matches!(kind, "" | "RuntimeDefault" | "Localhost")
    };
    let who = subjects(wrong(spec), &named(spec, wrong))?;
    let values = std::iter::once(spec)
        .chain(containers(spec))
        .filter(|object| wrong(object))
        .map(|object| object.str_at(pointer));
    Some((who, distinct(values)))
}

/// Who sets a seccomp profile to a type that is not allowed.
pub(super) fn unconfined_seccomp(spec: &Value) -> Option<String> {
    let (who, values) = profiles(spec, "/securityContext/seccompProfile/type")?;
    let values = values.join(", ");
    Some(format!(
        "{who} must not set securityContext.seccompProfile.type to {values}"
    ))
}

fn app_armor(spec: &Value) -> (&'static str, Option<String>) {
    let Some((who, values)) = profiles(spec, "/securityContext/appArmorProfile/type") else {
        return ("", None);
    };
    let rule = plural(
        values.len(),
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
    );
    let values = values.join(", ");
    let detail = format!("{who} must not set AppArmor profile type to {values}");
    (rule, Some(detail))
}

fn selinux(spec: &Value, minor: u32) -> Option<String> {
    let text = |object: &Value, field: &str| {
        let pointer = format!("/securityContext/seLinuxOptions/{field}");
        object.str_at(&pointer).to_string()
    };
    let bad_type = |object: &Value| {
        let found = text(object, "type");
        let allowed = |(name, since): &(&str, u32)| *name == found && minor >= *since;
        (!SELINUX_TYPES.iter().any(allowed)).then_some(found)
    };
    let sets = |object: &Value, field: &str| !text(object, field).is_empty();
    let wrong =
        |object: &Value| bad_type(object).is_some() || sets(object, "user") || sets(object, "role");
    let who = subjects(wrong(spec), &named(spec, wrong))?;
    let everyone: Vec<&Value> = std::iter::once(spec).chain(containers(spec)).collect();
    let types: Vec<String> = everyone.iter().filter_map(|one| bad_type(one)).collect();
    let types = distinct(types.iter().map(String::as_str));
    let mut problems = Vec::new();
    if !types.is_empty() {
        let word = plural(types.len(), "type", "types");
        problems.push(format!("{word} {}", types.join(", ")));
    }
    for field in ["user", "role"] {
        if everyone.iter().any(|one| sets(one, field)) {
            problems.push(format!("{field} may not be set"));
        }
    }
    let problems = problems.join("; ");
    Some(format!(
        "{who} set forbidden securityContext.seLinuxOptions: {problems}"
    ))
}

fn sysctls(spec: &Value, minor: u32) -> Option<String> {
    let names: Vec<&str> = spec
        .list_at("/securityContext/sysctls")
        .iter()
        .map(|sysctl| sysctl.str_at("/name"))
        .filter(|name| {
            let allowed = |(safe, since): &(&str, u32)| safe == name && minor >= *since;
            !SAFE_SYSCTLS.iter().any(allowed)
        })
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn host_process(spec: &Value) -> Option<String> {
    let wrong = |object: &Value| object.bool_at("/securityContext/windowsOptions/hostProcess");
    let who = subjects(wrong(spec), &named(spec, wrong))?;
    Some(format!(
        "{who} must not set securityContext.windowsOptions.hostProcess=true"
    ))
}
