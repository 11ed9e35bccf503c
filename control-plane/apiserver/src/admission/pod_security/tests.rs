//! What each level forbids, and in which words.

use super::{policy::Version, *};
use serde_json::json;

fn words_in(level: Level, version: Version, spec: &Value) -> Vec<String> {
    Standard { level, version }
        .violations(spec)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn words(level: Level, spec: Value) -> Vec<String> {
    words_in(level, Version::Latest, &spec)
}

#[test]
fn baseline_names_what_it_forbids() {
    let container = |extra: Value| {
        let mut container = json!({"name": "a"});
        if let (Some(own), Some(extra)) = (container.as_object_mut(), extra.as_object()) {
            own.extend(extra.clone());
        }
        json!({"containers": [container]})
    };
    for (spec, expected) in [
        (
            json!({"hostNetwork": true, "hostPID": true}),
            "host namespaces (hostNetwork=true, hostPID=true)",
        ),
        (
            container(json!({"securityContext": {"privileged": true}})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            container(
                json!({"securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}),
            ),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            container(json!({"ports": [{"containerPort": 80, "hostPort": 81}]})),
            "hostPort (container \"a\" uses hostPort 81)",
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            container(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            container(json!({"securityContext": {"seLinuxOptions": {"user": "root"}}})),
            "seLinuxOptions (container \"a\" set forbidden securityContext.seLinuxOptions: user may not be set)",
        ),
        (
            container(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}})),
            "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            container(
                json!({"readinessProbe": {"tcpSocket": {"host": "10.0.0.1", "port": 1}},
                    "lifecycle": {"preStop": {"httpGet": {"host": "169.254.169.254"}}}}),
            ),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle hosts \"10.0.0.1\", \"169.254.169.254\")",
        ),
        (
            json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}},
                "containers": [{"name": "a",
                    "securityContext": {"appArmorProfile": {"type": "Mine"}}}]}),
            "forbidden AppArmor profiles (pod and container \"a\" must not set AppArmor profile type to \"Mine\", \"Unconfined\")",
        ),
    ] {
        assert_eq!(words(Level::Baseline, spec.clone()), [expected], "{spec}");
        assert!(words(Level::Privileged, spec).is_empty());
    }
    assert!(words(Level::Baseline, container(json!({}))).is_empty());
}

#[test]
fn restricted_asks_for_the_strict_settings() {
    let plain = json!({"containers": [{"name": "a"}, {"name": "b"}],
        "volumes": [{"name": "v", "nfs": {}}]});
    assert_eq!(
        words(Level::Restricted, plain),
        [
            "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false)",
            "unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"])",
            "restricted volume types (volume \"v\" uses restricted volume type \"nfs\")",
            "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)",
            "seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ]
    );
    let good = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}],
        "volumes": [{"name": "v", "projected": {}}]});
    assert!(words(Level::Restricted, good.clone()).is_empty());
    let mut root = good;
    root["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(
        words(Level::Restricted, root),
        ["runAsUser=0 (pod must not set runAsUser=0)"]
    );
}

#[test]
fn a_version_has_the_rules_of_its_time() {
    let of_baseline = |version: u32, spec: Value| {
        words_in(Level::Baseline, Version::Minor(version), &spec)
            .iter()
            .map(|words| words.split(" (").next().unwrap_or("").to_string())
            .collect::<Vec<_>>()
    };
    let probe = json!({"containers": [{"name": "a",
        "livenessProbe": {"httpGet": {"host": "example.com"}}}]});
    assert!(of_baseline(33, probe.clone()).is_empty());
    assert_eq!(of_baseline(34, probe), ["probe or lifecycle host"]);
    let sysctl = |name: &str| json!({"securityContext": {"sysctls": [{"name": name}]}});
    for (name, since) in [("net.ipv4.tcp_fin_timeout", 29), ("net.ipv4.tcp_rmem", 32)] {
        assert_eq!(of_baseline(since - 1, sysctl(name)), ["forbidden sysctls"]);
        assert!(of_baseline(since, sysctl(name)).is_empty());
    }
    let engine = json!({"securityContext": {"seLinuxOptions": {"type": "container_engine_t"}}});
    assert_eq!(of_baseline(30, engine.clone()), ["seLinuxOptions"]);
    assert!(of_baseline(31, engine).is_empty());
    let unmasked = json!({"hostUsers": false, "containers": [{"name": "a",
        "securityContext": {"procMount": "Unmasked"}}]});
    assert_eq!(of_baseline(34, unmasked.clone()), ["procMount"]);
    assert!(of_baseline(35, unmasked.clone()).is_empty());
    // The restricted level says it once, in every version.
    for version in [34, 35] {
        let found = words_in(Level::Restricted, Version::Minor(version), &unmasked);
        let count = found
            .iter()
            .filter(|one| one.starts_with("procMount"))
            .count();
        assert_eq!(count, 1, "1.{version}: {found:?}");
    }
}

#[test]
fn the_restricted_level_knows_own_users_and_other_systems() {
    let names = |version: u32, spec: &Value| {
        words_in(Level::Restricted, Version::Minor(version), spec)
            .iter()
            .map(|words| words.split(" (").next().unwrap_or("").to_string())
            .collect::<Vec<_>>()
    };
    let windows = json!({"os": {"name": "windows"}, "containers": [{"name": "a"}]});
    assert_eq!(names(25, &windows), ["runAsNonRoot != true"]);
    assert_eq!(names(24, &windows).len(), 4);
    let root = json!({"hostUsers": false, "securityContext": {"runAsUser": 0, "runAsNonRoot": false,
        "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]}}}]});
    assert!(names(35, &root).is_empty());
    assert_eq!(
        words_in(Level::Restricted, Version::Minor(34), &root),
        [
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false)",
            "runAsUser=0 (pod must not set runAsUser=0)",
        ]
    );
}
