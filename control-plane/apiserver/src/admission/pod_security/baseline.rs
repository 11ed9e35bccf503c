//! The baseline level: no known way out of the pod.

use hull_api::ObjectExt;
use serde_json::Value;

use super::{Violation, containers, named, quoted, subject};

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
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// Collects violations. The rules that the restricted level has in a stricter form are left to
/// it when `restricted`.
pub(super) fn check(spec: &Value, restricted: bool, found: &mut Vec<Violation>) {
    let mut add = |rule: &'static str, details: Vec<String>| {
        if !details.is_empty() {
            found.push(Violation {
                rule,
                detail: details.join("; "),
            });
        }
    };
    let namespaces: Vec<String> = ["hostNetwork", "hostPID", "hostIPC"]
        .into_iter()
        .filter(|field| spec.bool_at(&format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if !namespaces.is_empty() {
        add("host namespaces", vec![namespaces.join(", ")]);
    }
    add(
        "privileged",
        flag(spec, "privileged", "securityContext.privileged=true"),
    );
    if !restricted {
        add("non-default capabilities", capabilities(spec));
        add("hostPath volumes", host_paths(spec));
        add("seccompProfile", unconfined_seccomp(spec));
    }
    add("hostPort", host_ports(spec));
    add("procMount", proc_mount(spec));
    add("seLinuxOptions", selinux(spec));
    add("forbidden sysctls", sysctls(spec));
    add("forbidden AppArmor profile", app_armor(spec));
    add("hostProcess", host_process(spec));
}

fn flag(spec: &Value, field: &str, words: &str) -> Vec<String> {
    let names = named(spec, |container| {
        container.bool_at(&format!("/securityContext/{field}"))
    });
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!("{} must not set {words}", subject(&names))]
}

fn capabilities(spec: &Value) -> Vec<String> {
    let wrong = |container: &Value| -> Vec<String> {
        container
            .list_at("/securityContext/capabilities/add")
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| !DEFAULT_CAPABILITIES.contains(name))
            .map(str::to_string)
            .collect()
    };
    let names = named(spec, |container| !wrong(container).is_empty());
    if names.is_empty() {
        return Vec::new();
    }
    let all: Vec<String> = containers(spec).flat_map(wrong).collect();
    vec![format!(
        "{} must not include {} in securityContext.capabilities.add",
        subject(&names),
        quoted(all.iter().map(String::as_str))
    )]
}

fn host_paths(spec: &Value) -> Vec<String> {
    let names: Vec<String> = spec
        .list_at("/volumes")
        .iter()
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| format!("{:?}", volume.str_at("/name")))
        .collect();
    match names.len() {
        0 => Vec::new(),
        1 => vec![format!("volume {}", names.concat())],
        _ => vec![format!("volumes {}", names.join(", "))],
    }
}

fn host_ports(spec: &Value) -> Vec<String> {
    let ports = |container: &Value| -> Vec<i64> {
        container
            .list_at("/ports")
            .iter()
            .filter_map(|port| port.int_at("/hostPort"))
            .filter(|port| *port != 0)
            .collect()
    };
    let names = named(spec, |container| !ports(container).is_empty());
    if names.is_empty() {
        return Vec::new();
    }
    let all: Vec<i64> = containers(spec).flat_map(ports).collect();
    let list: Vec<String> = all.iter().map(ToString::to_string).collect();
    let (uses, word) = (
        if names.len() == 1 { "uses" } else { "use" },
        if all.len() == 1 {
            "hostPort"
        } else {
            "hostPorts"
        },
    );
    vec![format!(
        "{} {uses} {word} {}",
        subject(&names),
        list.join(", ")
    )]
}

fn proc_mount(spec: &Value) -> Vec<String> {
    let wrong = |container: &Value| {
        !matches!(
            container.str_at("/securityContext/procMount"),
            "" | "Default"
        )
    };
    let names = named(spec, wrong);
    if names.is_empty() {
        return Vec::new();
    }
    let values = containers(spec)
        .filter(|container| wrong(container))
        .map(|container| container.str_at("/securityContext/procMount"));
    vec![format!(
        "{} must not set securityContext.procMount to {}",
        subject(&names),
        quoted(values)
    )]
}

/// Pod and containers whose profile of some kind has a forbidden type, with the words of each.
fn profiles(spec: &Value, pointer: &str, words: &str, wrong: fn(&str) -> bool) -> Vec<String> {
    let mut details = Vec::new();
    let own = spec.str_at(pointer);
    if wrong(own) {
        details.push(format!("pod must not set {words} to {own:?}"));
    }
    let names = named(spec, |container| wrong(container.str_at(pointer)));
    if !names.is_empty() {
        let values = containers(spec)
            .map(|container| container.str_at(pointer))
            .filter(|value| wrong(value));
        details.push(format!(
            "{} must not set {words} to {}",
            subject(&names),
            quoted(values)
        ));
    }
    details
}

fn unconfined_seccomp(spec: &Value) -> Vec<String> {
    profiles(
        spec,
        "/securityContext/seccompProfile/type",
        "securityContext.seccompProfile.type",
        |kind| !matches!(kind, "" | "RuntimeDefault" | "Localhost"),
    )
}

fn app_armor(spec: &Value) -> Vec<String> {
    profiles(
        spec,
        "/securityContext/appArmorProfile/type",
        "AppArmor profile type",
        |kind| !matches!(kind, "" | "RuntimeDefault" | "Localhost"),
    )
}

fn selinux(spec: &Value) -> Vec<String> {
    let problems = |object: &Value| -> Vec<String> {
        let text = |field: &str| object.str_at(&format!("/securityContext/seLinuxOptions/{field}"));
        let mut problems = Vec::new();
        if !SELINUX_TYPES.contains(&text("type")) {
            problems.push(format!("type {:?}", text("type")));
        }
        for field in ["user", "role"] {
            if !text(field).is_empty() {
                problems.push(format!("{field} may not be set"));
            }
        }
        problems
    };
    let mut details = Vec::new();
    let own = problems(spec);
    if !own.is_empty() {
        details.push(format!(
            "pod set forbidden securityContext.seLinuxOptions: {}",
            own.join("; ")
        ));
    }
    let names = named(spec, |container| !problems(container).is_empty());
    if !names.is_empty() {
        let mut all: Vec<String> = containers(spec).flat_map(problems).collect();
        all.dedup();
        details.push(format!(
            "{} set forbidden securityContext.seLinuxOptions: {}",
            subject(&names),
            all.join("; ")
        ));
    }
    details
}

fn sysctls(spec: &Value) -> Vec<String> {
    let names: Vec<&str> = spec
        .list_at("/securityContext/sysctls")
        .iter()
        .map(|sysctl| sysctl.str_at("/name"))
        .filter(|name| !SAFE_SYSCTLS.contains(name))
        .collect();
    if names.is_empty() {
        return Vec::new();
    }
    vec![names.join(", ")]
}

fn host_process(spec: &Value) -> Vec<String> {
    const POINTER: &str = "/securityContext/windowsOptions/hostProcess";
    const WORDS: &str = "must not set securityContext.windowsOptions.hostProcess=true";
    let mut details = Vec::new();
    if spec.bool_at(POINTER) {
        details.push(format!("pod {WORDS}"));
    }
    let names = named(spec, |container| container.bool_at(POINTER));
    if !names.is_empty() {
        details.push(format!("{} {WORDS}", subject(&names)));
    }
    details
}
