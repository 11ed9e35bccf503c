//! Which pods a quota is about.

use serde_json::Value;

use crate::{Kind, ObjectExt, kinds};

/// The quota counts this object.
pub fn matches(quota: &Value, kind: &Kind, object: &Value) -> bool {
    let scopes = quota.list_at("/spec/scopes");
    let terms = quota.list_at("/spec/scopeSelector/matchExpressions");
    if scopes.is_empty() && terms.is_empty() {
        return true;
    }
    // All scopes that are known here are about pods.
    if kind.schema != kinds::PODS.schema {
        return false;
    }
    scopes
        .iter()
        .all(|scope| in_scope(scope.as_str().unwrap_or(""), object))
        && terms.iter().all(|term| fulfils(term, object))
}

fn in_scope(scope: &str, pod: &Value) -> bool {
    let terminating = pod.int_at("/spec/activeDeadlineSeconds").is_some();
    let best_effort = kinds::pod::qos_class(pod) == "BestEffort";
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "PriorityClass" => !pod.str_at("/spec/priorityClassName").is_empty(),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

fn fulfils(term: &Value, pod: &Value) -> bool {
    let scope = term.str_at("/scopeName");
    if scope != "PriorityClass" {
        return in_scope(scope, pod);
    }
    let class = pod.str_at("/spec/priorityClassName");
    let listed = term.list_at("/values").iter().any(|value| value == class);
    match term.str_at("/operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        !term.list_at("/namespaces").is_empty() || term.get("namespaceSelector").is_some()
    };
    ["podAffinity", "podAntiAffinity"].iter().any(|affinity| {
        let base = format!("/spec/affinity/{affinity}");
        pod.list_at(&format!(
            "{base}/requiredDuringSchedulingIgnoredDuringExecution"
        ))
        .iter()
        .any(crosses)
            || pod
                .list_at(&format!(
                    "{base}/preferredDuringSchedulingIgnoredDuringExecution"
                ))
                .iter()
                .any(|term| term.get("podAffinityTerm").is_some_and(crosses))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn scopes_choose_pods() {
        let plain = json!({"spec": {"containers": [{"name": "a"}]}});
        let critical = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}],
            "priorityClassName": "high", "activeDeadlineSeconds": 5}});
        let quota = |scopes: Value, terms: Value| json!({"spec": {"scopes": scopes, "scopeSelector": {"matchExpressions": terms}}});
        let high = json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]);
        for (quota, expected) in [
            (quota(json!([]), json!([])), [true, true]),
            (quota(json!(["BestEffort"]), json!([])), [true, false]),
            (
                quota(json!(["Terminating", "NotBestEffort"]), json!([])),
                [false, true],
            ),
            (quota(json!([]), high), [false, true]),
        ] {
            let found = [&plain, &critical].map(|pod| matches(&quota, &kinds::PODS, pod));
            assert_eq!(found, expected, "{quota}");
            assert_eq!(
                matches(&quota, &kinds::CONFIG_MAPS, &json!({})),
                expected == [true, true]
            );
        }
    }
}
