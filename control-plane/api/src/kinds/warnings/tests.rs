use serde_json::json;

use super::*;
use crate::Registry;

fn told(schema: &str, new: Value, old: Option<Value>) -> Vec<String> {
    let kinds = Registry::get().kinds().iter();
    let kind = kinds.copied().find(|kind| kind.schema == schema).unwrap();
    warnings(kind, &new, old.as_ref())
}

fn of_spec(spec: Value) -> Vec<String> {
    told(
        "core.Pod",
        json!({"metadata": {"name": "p"}, "spec": spec}),
        None,
    )
}

fn of_container(container: Value) -> Vec<String> {
    of_spec(json!({ "containers": [container] }))
}

#[test]
fn nothing_is_told_of_what_is_as_it_should_be() {
    let pod = json!({"containers": [
        {"name": "a", "image": "b", "resources": {"limits": {"memory": "1500M", "cpu": "100m"}},
         "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}],
         "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "UDP"}]},
    ], "terminationGracePeriodSeconds": 0, "nodeSelector": {"kubernetes.io/os": "linux"}});
    assert!(of_spec(pod).is_empty());
}

#[test]
fn variables_that_hide_others_are_told() {
    let env = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"},
        {"name": "A", "value": "$(A)"}, {"name": "A", "value": "x$(A)"}]);
    let hides = |index: u32| {
        format!(
            "spec.containers[0].env[{index}]: hides previous definition of \"A\", which may be dropped when using apply"
        )
    };
    assert_eq!(of_container(json!({ "env": env })), [hides(1), hides(2)]);
}

#[test]
fn fractions_of_bytes_are_told() {
    let resources =
        json!({"limits": {"memory": "1500m"}, "requests": {"ephemeral-storage": "100m"}});
    assert_eq!(
        of_container(json!({ "resources": resources })),
        [
            "spec.containers[0].resources.limits[memory]: fractional byte value \"1500m\" is invalid, must be an integer",
            "spec.containers[0].resources.requests[ephemeral-storage]: fractional byte value \"100m\" is invalid, must be an integer",
        ]
    );
    let claim = json!({"spec": {"resources": {"requests": {"storage": "1m"}}}});
    assert_eq!(
        told("core.PersistentVolumeClaim", claim, None),
        [
            "spec.resources.requests[storage]: fractional byte value \"1m\" is invalid, must be an integer"
        ]
    );
}

#[test]
fn ports_that_overlap_are_told() {
    let port = |host_ip: &str, host_port: u32| json!({"containerPort": 80, "protocol": "TCP", "hostIP": host_ip, "hostPort": host_port});
    for (other, how) in [
        (port("", 8080), Some("duplicate")),
        (port("", 0), Some("overlapping")),
        (port("192.0.2.1", 8080), Some("dangerously ambiguous")),
        (port("", 8081), None),
    ] {
        let told = of_spec(json!({"containers": [
            {"name": "a", "ports": [port("", 8080)]}, {"name": "b", "ports": [other]}]}));
        let expected = how.map(|how| {
            format!("spec.containers[1].ports[0]: {how} port definition with spec.containers[0].ports[0]")
        });
        assert_eq!(told, Vec::from_iter(expected));
    }
    assert_eq!(
        of_container(json!({"ports": [port("192.0.2.1", 0)]})),
        [
            "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 Protocol:TCP HostIP:192.0.2.1}"
        ]
    );
}

#[test]
fn files_of_a_volume_that_overlap_are_told() {
    let items = json!([{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"},
        {"key": "c", "path": "xy"}]);
    let told = of_spec(json!({"volumes": [
        {"name": "v", "configMap": {"name": "m", "items": items}},
        {"name": "p", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"secret": {"name": "s", "items": [{"key": "t", "path": "token"}]}},
            {}]}},
    ]}));
    assert_eq!(
        told,
        [
            "volume \"v\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"",
            "volume \"p\" (Projected Secret \"s\"): overlapping paths: \"token\" with \"token\"",
            "volume \"p\" (Projected) has no sources provided",
        ]
    );
}

#[test]
fn deprecated_labels_and_fields_of_a_pod_are_told() {
    let label = "beta.kubernetes.io/os";
    let use_this = "deprecated since v1.14; use \"kubernetes.io/os\" instead";
    let term = json!({"matchExpressions": [{"key": label, "operator": "In", "values": ["-bad"]}]});
    let told = of_spec(json!({
        "nodeSelector": {label: "linux"},
        "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"preference": term}]},
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "z"}]}},
        "volumes": [{"name": "g", "gitRepo": {}}, {"name": "r", "rbd": {}}],
        "hostAliases": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.1"}],
        "imagePullSecrets": [{"name": "s"}, {"name": "s"}],
        "terminationGracePeriodSeconds": -1,
    }));
    let preference = "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference.matchExpressions[0]";
    for expected in [
        format!("spec.nodeSelector[{label}]: {use_this}"),
        format!("{preference}.key: {label} is {use_this}"),
        "spec.volumes[0].gitRepo: deprecated in v1.11".to_owned(),
        "spec.volumes[1].rbd: deprecated in v1.28, non-functional in v1.31+".to_owned(),
        "spec.hostAliases[1].ip: duplicate ip \"192.0.2.1\"".to_owned(),
        "spec.imagePullSecrets[1].name: duplicate name \"s\"".to_owned(),
        "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1".to_owned(),
        "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector: a null labelSelector results in matching no pod".to_owned(),
    ] {
        assert!(told.contains(&expected), "{expected}: {told:#?}");
    }
    let bad = format!("{preference}.values[0]: -bad is invalid, ");
    assert!(told.iter().any(|one| one.starts_with(&bad)), "{told:#?}");
}

#[test]
fn templates_are_told_of_when_they_change() {
    let deployment = |generation: i64, name: &str| {
        let annotations = json!({"scheduler.alpha.kubernetes.io/critical-pod": ""});
        json!({"metadata": {"name": name, "generation": generation},
            "spec": {"template": {"metadata": {"annotations": annotations}, "spec": {}}}})
    };
    let gone = "spec.template.metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the \"priorityClassName\" field instead";
    let old = deployment(1, "a.b");
    let created = told("apps.Deployment", old.clone(), None);
    assert!(created[0].starts_with("metadata.name: this is used in Pod names and hostnames"));
    assert_eq!(created[1..], [gone]);
    assert_eq!(
        told("apps.Deployment", deployment(2, "a.b"), Some(old.clone())),
        [gone]
    );
    assert!(told("apps.Deployment", old.clone(), Some(old)).is_empty());
}

#[test]
fn addresses_in_unusual_form_are_told() {
    let service = json!({"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.1",
        "loadBalancerIP": "::ffff:192.0.2.1", "externalIPs": ["2001:DB8::1"],
        "loadBalancerSourceRanges": ["192.0.2.1/24", "2001:db8:0::/48"]}});
    assert_eq!(
        told("core.Service", service, None),
        [
            "spec.externalIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.loadBalancerIP: non-standard IP address \"::ffff:192.0.2.1\" will be considered invalid in a future Kubernetes release: use \"192.0.2.1\"",
            "spec.loadBalancerSourceRanges[0]: CIDR value \"192.0.2.1/24\" is ambiguous in this context (should be \"192.0.2.0/24\" or \"192.0.2.1/32\"?)",
            "spec.loadBalancerSourceRanges[1]: IPv6 CIDR value \"2001:db8:0::/48\" should be in RFC 5952 canonical format (\"2001:db8::/48\")",
        ]
    );
}

#[test]
fn other_kinds_are_told_of() {
    let class = "kubernetes.io/ingress.class";
    for (schema, object, expected) in [
        (
            "networking.Ingress",
            json!({"metadata": {"annotations": {class: "nginx"}}, "spec": {}}),
            "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead",
        ),
        (
            "core.Service",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP"}}),
            "spec.SessionAffinity is ignored for headless services",
        ),
        (
            "core.PersistentVolume",
            json!({"spec": {"persistentVolumeReclaimPolicy": "Recycle"}}),
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
        ),
        (
            "storage.StorageClass",
            json!({"allowedTopologies": [{"matchLabelExpressions": [
                {"key": "failure-domain.beta.kubernetes.io/zone"}]}]}),
            "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
        ),
        (
            "core.Node",
            json!({"spec": {"externalID": "x"}}),
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
        ),
        (
            "apps.StatefulSet",
            json!({"spec": {"revisionHistoryLimit": -1}}),
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        ),
        (
            "networking.NetworkPolicy",
            json!({"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.9/24"}}]}]}}),
            "spec.egress[0].to[0].ipBlock.cidr: CIDR value \"192.0.2.9/24\" is ambiguous in this context (should be \"192.0.2.0/24\" or \"192.0.2.9/32\"?)",
        ),
    ] {
        assert_eq!(told(schema, object, None), [expected], "{schema}");
    }
}
