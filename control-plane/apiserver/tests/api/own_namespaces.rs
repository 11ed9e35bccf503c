//! A tenant's list of its own namespaces.

use serde_json::{Value, json};

use crate::{
    harness::TestServer,
    kubectl::Kubectl,
    rbac::{RBAC, binding, eventually, user},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_lists_its_own_namespaces_when_it_asks_for_them() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    for (name, stage) in [("green", "test"), ("red", "test"), ("red-live", "live")] {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"stage": stage}}});
        admin.post("/api/v1/namespaces", &namespace).await.ok();
        let (team, _) = name.split_once('-').unwrap_or((name, ""));
        let path = format!("{RBAC}/namespaces/{name}/rolebindings");
        let object = binding("RoleBinding", "team", ("ClusterRole", "view"), user(team));
        admin.post(&path, &object).await.ok();
    }
    let red = server.pki.client("red", "red", &[]).unwrap();
    let red = server.client(Some(&red));
    eventually(&red, "/api/v1/namespaces/red-live", 200).await;
    let own = "labelSelector=hull.dev%2Fown%3Dtrue";
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_string())
            .collect()
    };
    let all = |query: &str| format!("/api/v1/namespaces?{query}");
    let list = red.get(&all(own)).await.ok();
    assert_eq!(names(list), ["red", "red-live"]);
    let list = red.get(&all(&format!("{own}%2Cstage%3Dlive"))).await.ok();
    assert_eq!(names(list), ["red-live"]);
    // Pages, too, show nothing of others.
    let page = red.get(&all(&format!("{own}&limit=1"))).await.ok();
    assert!(page["metadata"].get("remainingItemCount").is_none());
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = red
        .get(&all(&format!("{own}&limit=5&continue={token}")))
        .await
        .ok();
    assert_eq!(names(rest), ["red-live"]);
    // Without the option, and for watches, it is as ever.
    for query in [
        "",
        "labelSelector=stage%3Dlive",
        &format!("{own}&watch=true"),
    ] {
        assert_eq!(red.get(&all(query)).await.code, 403, "{query}");
    }
    let nobody = server.pki.client("nobody", "nobody", &[]).unwrap();
    let list = server.client(Some(&nobody)).get(&all(own)).await.ok();
    assert!(names(list).is_empty());
    assert_eq!(server.client(None).get(&all(own)).await.code, 401);
    let kubectl = Kubectl::of(&server);
    let seen = kubectl
        .ok(&[
            "get",
            "ns",
            "-l",
            "hull.dev/own=true",
            "--as=red",
            "-o",
            "name",
        ])
        .await;
    assert_eq!(seen, "namespace/red\nnamespace/red-live\n");
}
