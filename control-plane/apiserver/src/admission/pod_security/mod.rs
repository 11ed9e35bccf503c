//! Pod Security Standards by namespace label: `pod-security.kubernetes.io/enforce` is
//! `privileged`, `baseline` or `restricted`. The versions of the standards are not told apart:
//! the newest holds.

mod baseline;
mod restricted;

use hull_api::{ApiError, ObjectExt, kinds, registry::Subresource};
use serde_json::Value;

use crate::{handlers::Context, storage::Storage};

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// What a namespace allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    /// An unknown word is the strictest level.
    fn of(namespace: &Value) -> Self {
        match namespace.labels().and_then(|labels| labels.get(ENFORCE)) {
            None => Level::Privileged,
            Some(value) => match value.as_str() {
                Some("privileged") => Level::Privileged,
                Some("baseline") => Level::Baseline,
                _ => Level::Restricted,
            },
        }
    }

    fn word(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }

    /// What a pod does that the level forbids.
    fn violations(self, spec: &Value) -> Vec<Violation> {
        let mut found = Vec::new();
        if self == Level::Privileged {
            return found;
        }
        baseline::check(spec, self == Level::Restricted, &mut found);
        if self == Level::Restricted {
            restricted::check(spec, &mut found);
        }
        found
    }
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Violation {
    rule: &'static str,
    detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.rule, self.detail)
    }
}

fn sentence(level: Level, violations: &[Violation]) -> String {
    let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
    format!(
        "PodSecurity \"{}:latest\": {}",
        level.word(),
        list.join(", ")
    )
}

/// Refuses a pod that its namespace forbids.
pub(super) async fn check_pod(storage: &Storage, pod: &Value) -> Result<(), ApiError> {
    let found = storage.get(&kinds::NAMESPACES, "", pod.namespace()).await?;
    let (Some(namespace), Some(spec)) = (found, pod.get("spec")) else {
        return Ok(());
    };
    let level = Level::of(&namespace.object);
    let violations = level.violations(spec);
    if violations.is_empty() {
        return Ok(());
    }
    Err(ApiError::forbidden(
        kinds::PODS.resource(),
        pod.name(),
        &format!("violates {}", sentence(level, &violations)),
    ))
}

/// Refuses a change of a pod that its namespace forbids. Only what a change can make worse is
/// looked at: a pod that was there before its namespace became strict can still be labelled.
pub(super) async fn check_update(
    context: &Context<'_>,
    new: &Value,
    old: &Value,
) -> Result<(), ApiError> {
    let concerned = context.kind.schema == kinds::PODS.schema
        && context.subresource != Some(Subresource::Status);
    if !concerned || !is_significant(new, old) {
        return Ok(());
    }
    check_pod(&context.backend.storage, new).await
}

/// There is a container that was not there before, or one with another image.
fn is_significant(new: &Value, old: &Value) -> bool {
    ["initContainers", "containers", "ephemeralContainers"]
        .into_iter()
        .any(|list| {
            let pointer = format!("/spec/{list}");
            let before = old.list_at(&pointer);
            new.list_at(&pointer).iter().any(|container| {
                let same = |one: &&Value| one.str_at("/name") == container.str_at("/name");
                before
                    .iter()
                    .find(same)
                    .is_none_or(|one| one.str_at("/image") != container.str_at("/image"))
            })
        })
}

/// All containers of a pod.
fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["/initContainers", "/containers", "/ephemeralContainers"]
        .into_iter()
        .flat_map(|field| spec.list_at(field))
}

/// Names of containers that fulfil a condition.
fn named(spec: &Value, condition: impl Fn(&Value) -> bool) -> Vec<String> {
    containers(spec)
        .filter(|container| condition(container))
        .map(|container| format!("{:?}", container.str_at("/name")))
        .collect()
}

/// `container "a"` or `containers "a", "b"`.
fn subject(names: &[String]) -> String {
    let word = if names.len() == 1 {
        "container"
    } else {
        "containers"
    };
    format!("{word} {}", names.join(", "))
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<String> = words.into_iter().map(|word| format!("{word:?}")).collect();
    words.sort();
    words.dedup();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(level: Level, spec: Value) -> Vec<String> {
        level
            .violations(&spec)
            .iter()
            .map(ToString::to_string)
            .collect()
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
}
