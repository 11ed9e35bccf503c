//! Rules of a pod's spec, one mistake at a time.

use serde_json::{Value, json};

use super::validate_spec;
use crate::field::{Errors, Path};

fn errors_of(mut pod: Value) -> Vec<String> {
    crate::kinds::pod::defaults::default_pod(&mut pod);
    let mut errors = Errors::default();
    validate_spec(&pod["spec"], &Path::new("spec"), &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

#[test]
fn each_mistake_is_named_with_its_path() {
    let container = |extra: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        for (key, value) in extra.as_object().unwrap() {
            container[key] = value.clone();
        }
        json!({"spec": {"containers": [container]}})
    };
    for (pod, expected) in [
        (
            json!({"spec": {"containers": []}}),
            "spec.containers: Required value",
        ),
        (
            json!({"spec": {"containers": [{"name": "c"}]}}),
            "spec.containers[0].image: Required value",
        ),
        (
            json!({"spec": {"containers": [{"image": "c"}]}}),
            "spec.containers[0].name: Required value",
        ),
        (
            json!({"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}}),
            "spec.containers[1].name: Duplicate value: \"c\"",
        ),
        (
            container(json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            container(json!({"volumeMounts": [{"name": "v", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            container(json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            container(json!({"resources": {"requests": {"pods": "2"}}})),
            "spec.containers[0].resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
        ),
        (
            container(json!({"resources": {"requests": {"example.com/gpu": "1"}}})),
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            container(json!({"resources": {
                "requests": {"example.com/gpu": "1"}, "limits": {"example.com/gpu": "2"},
            }})),
            "spec.containers[0].resources.requests: Invalid value: \"1\": must be equal to example.com/gpu limit of 2",
        ),
        (
            container(json!({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}})),
            "spec.containers[0].resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"spec": {"restartPolicy": "x", "containers": [{"name": "c", "image": "i"}]}}),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}], "containers": [{"name": "c", "image": "i"}]}}),
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
        ),
    ] {
        assert_eq!(errors_of(pod.clone()), [expected], "{pod}");
    }
    assert!(errors_of(container(json!({}))).is_empty());
}

/// A pod with one container, to which `extra` adds.
fn with_container(extra: Value) -> Value {
    let mut container = json!({"name": "c", "image": "i"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"spec": {"containers": [container], "volumes": [
        {"name": "v", "emptyDir": {}},
        {"name": "claim", "persistentVolumeClaim": {"claimName": "p"}},
        {"name": "image", "image": {"reference": "r"}},
    ]}})
}

/// A pod whose spec has `extra` besides.
fn with_spec(extra: Value) -> Value {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in extra.as_object().unwrap() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn check(cases: impl IntoIterator<Item = (Value, &'static str)>) {
    for (pod, expected) in cases {
        assert_eq!(errors_of(pod.clone()), [expected], "{pod}");
    }
}

#[test]
fn placement_has_to_make_sense() {
    const NODES: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let nodes = |terms: Value| {
        with_spec(json!({"affinity": {"nodeAffinity": {NODES: {"nodeSelectorTerms": terms}}}}))
    };
    let pods = |term: Value| with_spec(json!({"affinity": {"podAntiAffinity": {NODES: [term]}}}));
    let spread = |constraint: Value| with_spec(json!({"topologySpreadConstraints": [constraint]}));
    check([
        (
            nodes(json!([])),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            nodes(json!([{"matchExpressions": [{"key": "a", "operator": "In"}]}])),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            nodes(json!([{"matchExpressions": [{"key": "a", "operator": "Near"}]}])),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"Near\": not a valid selector operator",
        ),
        (
            nodes(json!([{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}])),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key",
        ),
        (
            with_spec(
                json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}}),
            ),
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100",
        ),
        (
            pods(json!({"topologyKey": "zone", "matchLabelKeys": ["a"]})),
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
        ),
        (
            pods(
                json!({"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["-"]}]}}),
            ),
            "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values[0]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        ),
        (
            spread(json!({"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"})),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            spread(json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "Wait"})),
            "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Wait\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
        ),
        (
            spread(
                json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2}),
            ),
            "spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
        ),
        (
            with_spec(
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}, {"maxSkew": 2, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
            "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, DoNotSchedule}\"",
        ),
    ]);
    assert_eq!(
        errors_of(pods(json!({})))[0],
        "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty"
    );
}

#[test]
fn security_contexts_hold_together() {
    let context = |context: Value| with_container(json!({"securityContext": context}));
    let pod = |context: Value| with_spec(json!({"securityContext": context}));
    check([
        (
            pod(json!({"supplementalGroups": [1, -1]})),
            "spec.securityContext.supplementalGroups[1]: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            pod(json!({"sysctls": [{"name": "A", "value": "1"}]})),
            "spec.securityContext.sysctls[0].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
        ),
        (
            with_spec(
                json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}}),
            ),
            "spec.securityContext.sysctls[0].name: Invalid value: \"net.core.somaxconn\": may not be specified when 'hostNetwork' is true",
        ),
        (
            pod(json!({"fsGroupChangePolicy": "Never"})),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
        ),
        (
            pod(json!({"seccompProfile": {"type": "Localhost"}})),
            "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            pod(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}})),
            "spec.securityContext.seccompProfile.localhostProfile: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            context(json!({"appArmorProfile": {"type": "Maybe"}})),
            "spec.containers[0].securityContext.appArmorProfile.type: Unsupported value: \"Maybe\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
        ),
        (
            with_spec(json!({"shareProcessNamespace": true, "hostPID": true})),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            with_spec(json!({"hostUsers": false, "hostPID": true})),
            "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false",
        ),
        (
            context(json!({"procMount": "Unmasked"})),
            "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
        (
            context(json!({"privileged": true, "allowPrivilegeEscalation": false})),
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
    ]);
}

#[test]
fn containers_fit_their_pod() {
    let mount = |extra: Value| {
        let mut mount = json!({"name": "v", "mountPath": "/x"});
        for (key, value) in extra.as_object().unwrap() {
            mount[key] = value.clone();
        }
        with_container(json!({"volumeMounts": [mount]}))
    };
    let probe = |probe: Value| with_container(json!({"readinessProbe": probe}));
    check([
        (
            mount(json!({"subPath": "a", "subPathExpr": "b"})),
            "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
        ),
        (
            mount(json!({"name": "image", "subPath": "a"})),
            "spec.containers[0].volumeMounts[0].subPath: Invalid value: \"a\": not allowed in image volume sources",
        ),
        (
            mount(json!({"mountPropagation": "Bidirectional"})),
            "spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            mount(json!({"recursiveReadOnly": "Enabled"})),
            "spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
        (
            with_container(json!({"volumeDevices": [{"name": "v", "devicePath": "/d"}]})),
            "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
        ),
        (
            with_container(json!({"volumeDevices": [{"name": "claim", "devicePath": "/../d"}]})),
            "spec.containers[0].volumeDevices[0].devicePath: Invalid value: \"/../d\": can not contain backsteps ('..')",
        ),
        (
            with_container(json!({"resources": {"claims": [{"name": "gpu"}]}})),
            "spec.containers[0].resources.claims[0]: Not found: \"gpu\": must be one of the names in pod.spec.resourceClaims which is empty",
        ),
        (
            with_container(
                json!({"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]}),
            ),
            "spec.containers[0].resizePolicy: Unsupported value: \"disk\": supported values: \"cpu\", \"memory\"",
        ),
        (
            with_container(json!({"restartPolicyRules": [{"action": "Restart"}]})),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            probe(json!({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 3})),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 3: must not be set for readinessProbes",
        ),
        (
            probe(json!({"httpGet": {"port": 1, "httpHeaders": [{"name": "a b", "value": ""}]}})),
            "spec.containers[0].readinessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ),
        (
            with_container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}})),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 60: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            with_spec(json!({"initContainers": [{"name": "i", "image": "i", "lifecycle": {}}]})),
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
    ]);
    let sidecar = json!({"name": "i", "image": "i", "restartPolicy": "Always",
        "readinessProbe": {"tcpSocket": {"port": 1}}});
    assert_eq!(
        errors_of(with_spec(json!({"initContainers": [sidecar]}))),
        [""; 0]
    );
    assert_eq!(errors_of(mount(json!({"subPath": "..data"}))), [""; 0]);
}

#[test]
fn what_is_read_of_the_pod_is_there() {
    let variable =
        |source: Value| with_container(json!({"env": [{"name": "A", "valueFrom": source}]}));
    let file = |item: Value| {
        let mut file = json!({"path": "p"});
        for (key, value) in item.as_object().unwrap() {
            file[key] = value.clone();
        }
        with_spec(json!({"volumes": [{"name": "d", "downwardAPI": {"items": [file]}}]}))
    };
    check([
        (
            variable(json!({"fieldRef": {"fieldPath": "status.moon"}})),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"status.moon\": error converting fieldPath: field label not supported: status.moon",
        ),
        (
            variable(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            variable(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
            "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            variable(json!({"configMapKeyRef": {"name": "c", "key": "a/b"}})),
            "spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Invalid value: \"a/b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            file(json!({})),
            "spec.volumes[0].downwardAPI.items[0]: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            file(json!({"resourceFieldRef": {"resource": "limits.cpu"}})),
            "spec.volumes[0].downwardAPI.items[0].resourceFieldRef.containerName: Required value",
        ),
    ]);
    for good in [
        variable(json!({"fieldRef": {"fieldPath": "metadata.annotations['A/b']"}})),
        variable(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}})),
        file(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
    ] {
        assert_eq!(errors_of(good.clone()), [""; 0], "{good}");
    }
}

#[test]
fn volumes_and_names_are_complete() {
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        for (key, value) in source.as_object().unwrap() {
            volume[key] = value.clone();
        }
        with_spec(json!({"volumes": [volume]}))
    };
    let claim = |labels: Value, modes: Value| {
        let spec = json!({"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}});
        let template = json!({"metadata": {"labels": labels}, "spec": spec});
        volume(json!({"ephemeral": {"volumeClaimTemplate": template}}))
    };
    let token = |seconds: i64| {
        volume(
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": seconds}}]}}),
        )
    };
    check([
        (
            volume(json!({"hostPath": {"path": "/x", "type": "Door"}})),
            "spec.volumes[0].hostPath.type: Unsupported value: \"Door\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        (
            volume(json!({"nfs": {"server": "s", "path": "x"}})),
            "spec.volumes[0].nfs.path: Invalid value: \"x\": must be an absolute path",
        ),
        (
            token(60),
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
        ),
        (
            volume(
                json!({"projected": {"sources": [{"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}}, {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}}]}}),
            ),
            "spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths",
        ),
        (
            volume(json!({"ephemeral": {}})),
            "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value",
        ),
        (
            claim(json!({}), json!([])),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (
            claim(json!({"/x": "b"}), json!(["ReadWriteOnce"])),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.labels: Invalid value: \"/x\": prefix part must be non-empty",
        ),
        (
            with_spec(json!({"dnsPolicy": "None"})),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            with_spec(json!({"dnsConfig": {"options": [{"value": "1"}]}})),
            "spec.dnsConfig.options[0]: Required value: must not be empty",
        ),
        (
            with_spec(json!({"hostAliases": [{"ip": "moon", "hostnames": ["a"]}]})),
            "spec.hostAliases[0].ip: Invalid value: \"moon\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        (
            with_spec(json!({"readinessGates": [{"conditionType": "/x"}]})),
            "spec.readinessGates[0].conditionType: Invalid value: \"/x\": prefix part must be non-empty",
        ),
        (
            with_spec(json!({"preemptionPolicy": "Maybe"})),
            "spec.preemptionPolicy: Unsupported value: \"Maybe\": supported values: \"Never\", \"PreemptLowerPriority\"",
        ),
        (
            with_spec(json!({"os": {"name": "plan9"}})),
            "spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\"",
        ),
        (
            with_spec(json!({"resourceClaims": [{"name": "a"}]})),
            "spec.resourceClaims[0]: Invalid value: {\"name\":\"a\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ),
    ]);
    let searches = with_spec(json!({"dnsConfig": {"searches": ["_tcp.example.com.", "."]}}));
    assert_eq!(errors_of(searches), [""; 0]);
}

/// A body of the largest size that is taken holds lists of this length; comparing each entry
/// with each other would take hours.
#[test]
fn duplicates_are_found_in_long_lists() {
    const LENGTH: usize = 20_000;
    let list = |entry: &dyn Fn(usize) -> Value| -> Vec<Value> {
        // The last has the name of the first.
        (0..LENGTH).chain([0]).map(entry).collect()
    };
    let spec = json!({
        "volumes": list(&|n| json!({"name": format!("v{n}"), "emptyDir": {}})),
        "tolerations": list(&|n| json!({"key": format!("k{n}"), "operator": "Exists"})),
        "initContainers": list(&|n| json!({"name": format!("i{n}"), "image": "i"})),
        "containers": [{
            "name": "c",
            "image": "i",
            "ports": list(&|n| json!({
                "name": format!("a{n}"),
                "containerPort": 1,
                "hostPort": n % 65535 + 1,
                "protocol": "TCP",
            })),
            "volumeMounts": list(&|n| json!({"name": format!("v{n}"), "mountPath": format!("/{n}")})),
        }],
        "hostNetwork": false,
    });
    let last = LENGTH;
    let mut errors = errors_of(json!({"spec": spec}));
    errors.sort();
    assert_eq!(
        errors,
        [
            format!("spec.containers[0].ports[{last}].hostPort: Duplicate value: \"TCP//1\""),
            format!("spec.containers[0].ports[{last}].name: Duplicate value: \"a0\""),
            format!(
                "spec.containers[0].volumeMounts[{last}].mountPath: Invalid value: \"/0\": must be unique"
            ),
            format!("spec.initContainers[{last}].name: Duplicate value: \"i0\""),
            format!("spec.volumes[{last}].name: Duplicate value: \"v0\""),
        ]
    );
}

#[test]
fn some_resources_are_named_twice() {
    let errors_of = |resources: Value| {
        let container = json!({"name": "c", "image": "i", "resources": resources});
        errors_of(json!({"spec": {"containers": [container]}}))
    };
    // The limit is the request too.
    let pages = errors_of(json!({"limits": {"cpu": "1", "hugepages-2Mi": "3Mi"}}));
    let why = "[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi";
    assert_eq!(
        pages,
        ["limits", "requests"].map(|list| format!("spec.containers[0].resources.{list}{why}"))
    );
    let at = "spec.containers[0].resources.requests[cpus]: Invalid value: \"cpus\": must be a standard resource";
    assert_eq!(
        errors_of(json!({"requests": {"cpus": "2"}})),
        [
            format!("{at} type or fully qualified"),
            format!("{at} for containers"),
        ]
    );
}

#[test]
fn resources_of_the_pod_hold_those_of_its_containers() {
    let pod = |whole: Value| {
        let own = json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}});
        let one = |name: &str| json!({"name": name, "image": "i", "resources": own.clone()});
        json!({"spec": {"resources": whole, "containers": [one("a"), one("b")]}})
    };
    assert_eq!(
        errors_of(pod(json!({"requests": {"cpu": "2", "memory": "2Gi"}}))),
        [""; 0]
    );
    for (whole, expected) in [
        (
            json!({"requests": {"cpu": "1500m"}}),
            "spec.resources.requests[cpu]: Invalid value: \"1500m\": must be greater than or equal to aggregate container requests of 2",
        ),
        (
            json!({"limits": {"memory": "512Mi"}, "requests": {"memory": "512Mi"}}),
            "spec.resources.requests[memory]: Invalid value: \"512Mi\": must be greater than or equal to aggregate container requests of 2Gi",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "2"}}),
            "spec.resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"limits": {"storage": "1"}}),
            "spec.resources.limits[storage]: Unsupported value: \"storage\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
        ),
        (
            json!({"claims": [{"name": "x"}]}),
            "spec.resources.claims: Forbidden: claims may not be set for Resources at pod-level",
        ),
    ] {
        let errors = errors_of(pod(whole));
        assert!(
            errors.iter().any(|one| one == expected),
            "{expected}\n{errors:#?}"
        );
    }
    let tight = pod(json!({"limits": {"memory": "512Mi"}}));
    assert!(
        errors_of(tight).contains(
            &"spec.resources.containers[0][memory].limits: Invalid value: \"1Gi\": must be less than or equal to pod limits of 512Mi".to_string()
        )
    );
}

#[test]
fn resources_of_the_pod_have_defaults() {
    let own = json!({"requests": {"cpu": "1"}});
    let mut pod = json!({"spec": {
        "resources": {"limits": {"cpu": "4", "memory": "1Gi"}},
        "containers": [
            {"name": "a", "image": "i", "resources": own}, {"name": "b", "image": "i", "resources": own},
        ],
        "initContainers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "3"}}}],
    }});
    crate::kinds::pod::defaults::default_pod(&mut pod);
    assert_eq!(
        pod["spec"]["resources"]["requests"],
        json!({"cpu": "3", "memory": "1Gi"})
    );
}
