//! What `kubectl get` shows of each kind: Kubernetes' columns and cells.

use http::Method;
use serde_json::{Value, json};

use crate::harness::TestServer;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

/// A kind's collection, an object of it, its status; columns with the cells of that object.
/// Columns in brackets are shown with `-o wide`.
struct Shown {
    path: &'static str,
    object: Value,
    status: Value,
    cells: Vec<(&'static str, Value)>,
}

fn age(name: &'static str) -> (&'static str, Value) {
    (name, json!("<age>"))
}

fn kinds() -> Vec<Shown> {
    let named = |name: &str| ("Name", json!(name));
    let shown = |path, object, cells| Shown {
        path,
        object,
        status: Value::Null,
        cells,
    };
    let set = json!({"metadata": {"name": "rs"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "web", "image": "nginx"}, {"name": "log", "image": "busybox"}]}}}});
    let node = json!({"metadata": {"name": "n", "labels": {
        "node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}});
    let node_status = json!({"conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "192.0.2.7"}, {"type": "Hostname", "address": "n"}],
        "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian", "kernelVersion": "6.12",
            "containerRuntimeVersion": "hull://0.1.0", "architecture": "amd64", "bootID": "", "machineID": "",
            "systemUUID": "", "operatingSystem": "linux", "kubeProxyVersion": ""}});
    let event = json!({"metadata": {"name": "e"}, "type": "Warning", "reason": "BackOff", "count": 7,
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default", "fieldPath": "spec.containers{web}"},
        "message": "again\n", "source": {"component": "kubelet", "host": "n"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z"});
    vec![
        shown(
            "/api/v1/namespaces",
            json!({"metadata": {"name": "shop"}}),
            vec![named("shop"), ("Status", json!("Active")), age("Age")],
        ),
        Shown {
            path: "/api/v1/nodes",
            object: node,
            status: node_status,
            cells: vec![
                named("n"),
                ("Status", json!("Ready,SchedulingDisabled")),
                ("Roles", json!("control-plane,worker")),
                age("Age"),
                ("Version", json!("v1.36.0")),
                ("[Internal-IP]", json!("192.0.2.7")),
                ("[External-IP]", json!("<none>")),
                ("[OS-Image]", json!("Debian")),
                ("[Kernel-Version]", json!("6.12")),
                ("[Container-Runtime]", json!("hull://0.1.0")),
            ],
        },
        shown(
            "/api/v1/namespaces/default/events",
            event,
            vec![
                age("Last Seen"),
                ("Type", json!("Warning")),
                ("Reason", json!("BackOff")),
                ("Object", json!("pod/p")),
                ("[Subobject]", json!("spec.containers{web}")),
                ("[Source]", json!("kubelet, n")),
                ("Message", json!("again")),
                age("[First Seen]"),
                ("[Count]", json!(7)),
                ("[Name]", json!("e")),
            ],
        ),
        shown(
            "/api/v1/namespaces/default/configmaps",
            json!({"metadata": {"name": "c"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "MQ=="}}),
            vec![named("c"), ("Data", json!(3)), age("Age")],
        ),
        shown(
            "/api/v1/namespaces/default/secrets",
            json!({"metadata": {"name": "s"}, "type": "example.com/key", "data": {"a": "MQ=="}}),
            vec![
                named("s"),
                ("Type", json!("example.com/key")),
                ("Data", json!(1)),
                age("Age"),
            ],
        ),
        shown(
            "/api/v1/namespaces/default/serviceaccounts",
            json!({"metadata": {"name": "robot"}, "secrets": [{"name": "a"}, {"name": "b"}]}),
            vec![named("robot"), ("Secrets", json!(2)), age("Age")],
        ),
        Shown {
            path: "/apis/apps/v1/namespaces/default/replicasets",
            object: set,
            status: json!({"replicas": 2, "readyReplicas": 1}),
            cells: vec![
                named("rs"),
                ("Desired", json!(3)),
                ("Current", json!(2)),
                ("Ready", json!(1)),
                age("Age"),
                ("[Containers]", json!("web,log")),
                ("[Images]", json!("nginx,busybox")),
                ("[Selector]", json!("app=web")),
            ],
        },
        shown(
            "/apis/node.k8s.io/v1/runtimeclasses",
            json!({"metadata": {"name": "vm"}, "handler": "microvm"}),
            vec![named("vm"), ("Handler", json!("microvm")), age("Age")],
        ),
        shown(
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "somebody"}}),
            vec![named("l"), ("Holder", json!("somebody")), age("Age")],
        ),
    ]
}

/// A column's name, in brackets when it is shown with `-o wide` only.
fn column(definition: &Value) -> String {
    let name = definition["name"].as_str().unwrap();
    match definition["priority"].as_i64() {
        Some(0) | None => name.to_string(),
        Some(_) => format!("[{name}]"),
    }
}

#[tokio::test]
async fn each_kind_has_kubernetes_columns_and_cells() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for kind in kinds() {
        let mut created = client.post(kind.path, &kind.object).await.ok();
        let name = created["metadata"]["name"].as_str().unwrap().to_string();
        let path = format!("{}/{name}", kind.path);
        if !kind.status.is_null() {
            created["status"] = kind.status;
            client.put(&format!("{path}/status"), &created).await.ok();
        }
        let headers = [("accept", TABLE)];
        let table = client.send(Method::GET, &path, &headers, "").await.ok();
        let columns = table["columnDefinitions"].as_array().unwrap().iter();
        let cells = table["rows"][0]["cells"].as_array().unwrap().iter();
        let shown: Vec<(String, Value)> = columns.map(column).zip(cells.cloned()).collect();
        let wanted: Vec<(String, Value)> = kind
            .cells
            .into_iter()
            .zip(&shown)
            .map(|((name, cell), (_, found))| {
                // How long ago, as `0s` or `325d`.
                let is_age = found.as_str().is_some_and(|text| {
                    text.starts_with(|c: char| c.is_ascii_digit())
                        && text.ends_with(['s', 'm', 'h', 'd', 'y'])
                });
                let cell = if cell == "<age>" && is_age {
                    found.clone()
                } else {
                    cell
                };
                (name.to_string(), cell)
            })
            .collect();
        assert_eq!(shown, wanted, "{path}");
        assert_eq!(table["rows"].as_array().unwrap().len(), 1);
    }
}
