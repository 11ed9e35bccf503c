//! Roles, bindings, nodes, questions about access, and acting as somebody else.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use crate::{
    harness::{ApiClient, CONFIG_MAPS, PATIENCE, PODS, TestServer, bind, config_map, pod},
    kubectl::Kubectl,
};

pub const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn role(kind: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "rules": rules})
}

pub fn binding(kind: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "roleRef": {"kind": role.0, "name": role.1},
        "subjects": [subject]})
}

pub fn user(name: &str) -> Value {
    json!({"kind": "User", "name": name})
}

fn roles() -> String {
    format!("{RBAC}/namespaces/default/roles")
}

fn role_bindings() -> String {
    format!("{RBAC}/namespaces/default/rolebindings")
}

/// Policies reach the authorizer over the watch cache: a moment later.
pub async fn eventually(client: &ApiClient, path: &str, code: u16) {
    let started = Instant::now();
    loop {
        let answer = client.get(path).await;
        if answer.code == code {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "{path}: {}", answer.text);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn jane(server: &TestServer) -> ApiClient {
    let pair = server.pki.client("jane", "jane", &["devs"]).unwrap();
    server.client(Some(&pair))
}

#[tokio::test]
async fn a_binding_grants_and_its_removal_takes_away() {
    let server = TestServer::start().await;
    let (admin, jane) = (&server.admin, jane(&server));
    assert_eq!(jane.get(CONFIG_MAPS).await.code, 403);
    let rules = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"]}]);
    admin
        .post(&roles(), &role("Role", "reader", rules))
        .await
        .ok();
    let group = json!({"kind": "Group", "name": "devs"});
    admin
        .post(
            &role_bindings(),
            &binding("RoleBinding", "b", ("Role", "reader"), group),
        )
        .await
        .ok();
    eventually(&jane, CONFIG_MAPS, 200).await;
    assert_eq!(
        jane.get("/api/v1/configmaps").await.code,
        403,
        "only in the namespace"
    );
    assert_eq!(
        jane.get("/api/v1/namespaces/kube-system/configmaps")
            .await
            .code,
        403
    );
    assert_eq!(jane.post(CONFIG_MAPS, &config_map("x")).await.code, 403);
    admin
        .delete(&format!("{}/b", role_bindings()), &json!({}))
        .await
        .ok();
    eventually(&jane, CONFIG_MAPS, 403).await;
    admin
        .post(
            &format!("{RBAC}/clusterrolebindings"),
            &binding(
                "ClusterRoleBinding",
                "v",
                ("ClusterRole", "view"),
                user("jane"),
            ),
        )
        .await
        .ok();
    eventually(&jane, "/api/v1/configmaps", 200).await;
    assert_eq!(jane.get(SECRETS).await.code, 403);
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let server = TestServer::start().await;
    let (admin, jane) = (&server.admin, jane(&server));
    admin
        .post(
            &role_bindings(),
            &binding("RoleBinding", "a", ("ClusterRole", "admin"), user("jane")),
        )
        .await
        .ok();
    eventually(&jane, CONFIG_MAPS, 200).await;
    let pods = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
    jane.post(&roles(), &role("Role", "pods", pods)).await.ok();
    let nodes = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["nodes"]}]);
    let (code, _, message) = jane
        .post(&roles(), &role("Role", "nodes", nodes))
        .await
        .refused();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "roles.rbac.authorization.k8s.io \"nodes\" is forbidden: user \"jane\" (groups=[\"devs\", \"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
    );
    let everything = binding(
        "RoleBinding",
        "x",
        ("ClusterRole", "cluster-admin"),
        user("jane"),
    );
    let (code, _, message) = jane.post(&role_bindings(), &everything).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains("attempting to grant RBAC permissions not currently held"),
        "{message}"
    );
    let view = binding("RoleBinding", "y", ("ClusterRole", "view"), user("joe"));
    jane.post(&role_bindings(), &view).await.ok();
    let missing = binding("RoleBinding", "z", ("Role", "nope"), user("joe"));
    assert_eq!(jane.post(&role_bindings(), &missing).await.code, 404);
    let widened = json!({"rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]});
    let answer = jane
        .patch(&format!("{}/pods", roles()), "merge-patch", &widened)
        .await;
    assert_eq!(answer.code, 403, "{}", answer.text);
}

#[tokio::test]
async fn wrong_roles_and_bindings_are_refused() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    for (object, words) in [
        (
            role(
                "Role",
                "r",
                json!([{"verbs": [], "apiGroups": [""], "resources": ["pods"]}]),
            ),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            role(
                "Role",
                "r",
                json!([{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            ),
            "namespaced rules cannot apply to non-resource URLs",
        ),
        (
            role(
                "Role",
                "r",
                json!([{"verbs": ["get"], "resources": ["pods"]}]),
            ),
            "resource rules must supply at least one api group",
        ),
    ] {
        let (code, _, message) = admin.post(&roles(), &object).await.refused();
        assert_eq!(code, 422);
        assert!(message.contains(words), "{message}");
    }
    for (object, words) in [
        (
            binding("RoleBinding", "b", ("Nope", "r"), user("x")),
            "roleRef.kind: Unsupported value: \"Nope\": supported values: \"ClusterRole\", \"Role\"",
        ),
        (
            binding("RoleBinding", "b", ("Role", ""), user("x")),
            "roleRef.name: Required value",
        ),
        (
            binding(
                "RoleBinding",
                "b",
                ("Role", "r"),
                json!({"kind": "Thing", "name": "x"}),
            ),
            "subjects[0].kind: Unsupported value",
        ),
    ] {
        let (code, _, message) = admin.post(&role_bindings(), &object).await.refused();
        assert_eq!(code, 422);
        assert!(message.contains(words), "{message}");
    }
    let bound = binding("RoleBinding", "b", ("ClusterRole", "view"), user("x"));
    admin.post(&role_bindings(), &bound).await.ok();
    let other = json!({"roleRef": {"name": "edit"}});
    let (code, _, message) = admin
        .patch(&format!("{}/b", role_bindings()), "merge-patch", &other)
        .await
        .refused();
    assert_eq!(code, 422);
    assert!(message.contains("cannot change roleRef"), "{message}");
}

#[tokio::test]
async fn a_node_reads_only_what_its_pods_name() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let secret =
        |name: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}});
    for name in ["mine", "other"] {
        admin.post(SECRETS, &secret(name)).await.ok();
    }
    let mut mine = pod("p");
    mine["spec"]["containers"][0]["envFrom"] = json!([{"secretRef": {"name": "mine"}}]);
    admin.post(PODS, &mine).await.ok();
    admin.post(PODS, &pod("q")).await.ok();
    let node = server.client(Some(&server.pki.node_client("n").unwrap()));
    assert_eq!(
        node.get(&format!("{SECRETS}/mine")).await.code,
        403,
        "not bound yet"
    );
    bind(admin, "p", "n").await.ok();
    bind(admin, "q", "m").await.ok();
    eventually(&node, &format!("{SECRETS}/mine"), 200).await;
    let (code, _, message) = node.get(&format!("{SECRETS}/other")).await.refused();
    assert_eq!(code, 403);
    assert!(
        message.contains("no relationship found between node \"n\" and this object"),
        "{message}"
    );
    assert_eq!(node.get(SECRETS).await.code, 403);
    let selected = format!("{SECRETS}?fieldSelector=metadata.name%3Dmine");
    assert_eq!(node.get(&selected).await.code, 200);
    assert_eq!(node.get("/api/v1/pods").await.code, 403);
    assert_eq!(
        node.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn")
            .await
            .code,
        200
    );
    assert_eq!(node.get(&format!("{PODS}/q")).await.code, 403);
    let status = json!({"status": {"phase": "Running"}});
    let patch = async |name: &str| {
        node.patch(&format!("{PODS}/{name}/status"), "merge-patch", &status)
            .await
            .code
    };
    assert_eq!(patch("p").await, 200);
    assert_eq!(patch("q").await, 403);
    assert_eq!(
        node.delete(&format!("{PODS}/q"), &json!({})).await.code,
        403
    );
    let node_object = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
    let nodes = "/api/v1/nodes";
    assert_eq!(
        node.post(nodes, &node_object("m", json!({}))).await.code,
        403
    );
    let claims = json!({"node-role.kubernetes.io/control-plane": ""});
    assert_eq!(node.post(nodes, &node_object("n", claims)).await.code, 403);
    node.post(
        nodes,
        &node_object("n", json!({"kubernetes.io/hostname": "n"})),
    )
    .await
    .ok();
    let taint = json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    assert_eq!(
        node.patch(&format!("{nodes}/n"), "merge-patch", &taint)
            .await
            .code,
        403
    );
    assert_eq!(node.get(&format!("{nodes}/n")).await.code, 200);
    assert_eq!(node.get(&format!("{nodes}/m")).await.code, 403);
    let lease = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}});
    let leases =
        |namespace: &str| format!("/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases");
    node.post(&leases("kube-node-lease"), &lease("n"))
        .await
        .ok();
    assert_eq!(
        node.post(&leases("kube-node-lease"), &lease("m"))
            .await
            .code,
        403
    );
    assert_eq!(node.post(&leases("default"), &lease("n")).await.code, 403);
    assert_eq!(
        node.post(PODS, &pod("x")).await.code,
        403,
        "only mirror pods"
    );
}

#[tokio::test]
async fn impersonation_needs_the_right_and_acts_as_the_other() {
    let server = TestServer::start().await;
    let (admin, jane) = (&server.admin, jane(&server));
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let send = async |client: &ApiClient, headers: &[(&str, &str)]| {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        client
            .send(Method::POST, reviews, &all, review.to_string())
            .await
    };
    let answer = send(
        admin,
        &[
            ("impersonate-user", "bob"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-reason", "test"),
        ],
    )
    .await
    .ok();
    assert_eq!(
        answer["status"]["userInfo"],
        json!({"username": "bob", "groups": ["ops", "system:authenticated"], "extra": {"reason": ["test"]}})
    );
    let (code, _, message) = send(&jane, &[("impersonate-user", "bob")]).await.refused();
    assert_eq!(code, 403);
    assert_eq!(
        message,
        "users \"bob\" is forbidden: User \"jane\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
    );
    assert_eq!(send(admin, &[("impersonate-group", "ops")]).await.code, 400);
    let account = send(admin, &[("impersonate-user", "system:serviceaccount:a:b")])
        .await
        .ok();
    assert_eq!(
        account["status"]["userInfo"]["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:a",
            "system:authenticated"
        ])
    );
    let as_bob = [("impersonate-user", "bob")];
    let refused = admin.send(Method::GET, PODS, &as_bob, "").await;
    assert!(refused.refused().2.contains("User \"bob\" cannot list"));
}

#[tokio::test]
async fn the_policy_comes_back_at_the_next_start_and_additions_stay() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let view = admin
        .get(&format!("{RBAC}/clusterroles/system:discovery"))
        .await
        .ok();
    assert_eq!(
        view["metadata"]["labels"]["kubernetes.io/bootstrapping"],
        "rbac-defaults"
    );
    assert_eq!(
        view["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"],
        "true"
    );
    let reviews = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    let ask = |spec: Value| json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
    let answer = admin
        .post(reviews, &ask(json!({"user": "system:kube-scheduler", "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "binding", "namespace": "a"}})))
        .await
        .ok();
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(
        answer["status"]["reason"],
        "RBAC: allowed by ClusterRoleBinding \"system:kube-scheduler\" of ClusterRole \"system:kube-scheduler\" to User \"system:kube-scheduler\""
    );
    let exec = json!({"user": "system:kube-controller-manager", "resourceAttributes": {"verb": "create", "resource": "pods", "subresource": "exec", "namespace": "a"}});
    assert_eq!(
        admin.post(reviews, &ask(exec)).await.ok()["status"]["allowed"],
        false
    );
    assert_eq!(
        admin.post(reviews, &ask(json!({"user": "x"}))).await.code,
        422
    );
    assert_eq!(admin.get(reviews).await.code, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_auth_answers() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    assert_eq!(
        kubectl.ok(&["auth", "can-i", "delete", "nodes"]).await,
        "yes\n"
    );
    let whoami = kubectl.ok(&["auth", "whoami"]).await;
    assert!(
        whoami.contains("kubernetes-admin") && whoami.contains("system:masters"),
        "{whoami}"
    );
    let refused = kubectl
        .run_with(&["auth", "can-i", "get", "pods", "--as", "jane"], "")
        .await;
    assert!(!refused.success);
    assert_eq!(refused.stdout, "no\n");
    kubectl
        .ok(&[
            "create",
            "role",
            "reader",
            "--verb=get,list",
            "--resource=pods",
        ])
        .await;
    kubectl
        .ok(&["create", "rolebinding", "b", "--role=reader", "--user=jane"])
        .await;
    let started = Instant::now();
    loop {
        let answer = kubectl
            .run_with(&["auth", "can-i", "get", "pods", "--as", "jane"], "")
            .await;
        if answer.stdout == "yes\n" {
            break;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "{}{}",
            answer.stdout,
            answer.stderr
        );
    }
    let list = kubectl
        .ok(&["auth", "can-i", "--list", "--as", "jane"])
        .await;
    assert!(
        list.contains("pods") && list.contains("[get list]"),
        "{list}"
    );
    assert!(
        list.contains("selfsubjectaccessreviews.authorization.k8s.io"),
        "{list}"
    );
    let table = kubectl.ok(&["get", "rolebindings", "-o", "wide"]).await;
    assert!(
        table.contains("Role/reader") && table.contains("jane"),
        "{table}"
    );
    let described = kubectl
        .ok(&["describe", "clusterrole", "system:basic-user"])
        .await;
    assert!(
        described.contains("selfsubjectreviews.authentication.k8s.io"),
        "{described}"
    );
}
