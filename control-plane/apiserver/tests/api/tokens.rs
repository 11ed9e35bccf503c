//! Tokens of service accounts.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, ApiClient, PODS, TestServer, bind, pod},
    kubectl::Kubectl,
};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const SELF: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn account(client: &ApiClient, name: &str) -> Value {
    let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    client.post(ACCOUNTS, &object).await.ok()
}

async fn request(client: &ApiClient, name: &str, spec: Value) -> Answer {
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    client
        .post(&format!("{ACCOUNTS}/{name}/token"), &body)
        .await
}

async fn token(client: &ApiClient, name: &str, spec: Value) -> String {
    let answer = request(client, name, spec).await.ok();
    answer["status"]["token"].as_str().unwrap().to_string()
}

/// Who the server says the token's bearer is.
async fn whoami(server: &TestServer, token: &str) -> Answer {
    let nobody = server.client(None);
    let bearer = format!("Bearer {token}");
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    nobody
        .send(
            Method::POST,
            SELF,
            &[
                ("content-type", "application/json"),
                ("authorization", &bearer),
            ],
            review.to_string(),
        )
        .await
}

#[tokio::test]
async fn a_token_is_its_service_account_until_that_is_gone() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let created = account(admin, "bot").await;
    let text = token(admin, "bot", json!({})).await;
    let user = whoami(&server, &text).await.ok()["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
    assert_eq!(user["uid"], created["metadata"]["uid"]);
    assert_eq!(
        user["groups"],
        json!([
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ])
    );
    assert!(
        user["extra"]["authentication.kubernetes.io/credential-id"][0]
            .as_str()
            .unwrap()
            .starts_with("JTI=")
    );
    let nobody = server.client(None);
    let bearer = format!("Bearer {text}");
    let forbidden = nobody
        .send(Method::GET, PODS, &[("authorization", &bearer)], "")
        .await;
    assert_eq!(
        forbidden.refused().2,
        "pods is forbidden: User \"system:serviceaccount:default:bot\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    admin
        .delete(&format!("{ACCOUNTS}/bot"), &json!({}))
        .await
        .ok();
    account(admin, "bot").await;
    assert_eq!(
        whoami(&server, &text).await.code,
        401,
        "another account of the same name"
    );
    for bad in ["x", "a.b.c", "", &format!("{text}x")] {
        assert_eq!(whoami(&server, bad).await.code, 401, "{bad}");
    }
}

#[tokio::test]
async fn a_token_ends_with_the_pod_it_is_bound_to() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    account(admin, "bot").await;
    let mut object = pod("p");
    object["spec"]["serviceAccountName"] = json!("bot");
    let created = admin.post(PODS, &object).await.ok();
    let uid = created["metadata"]["uid"].as_str().unwrap();
    bind(admin, "p", "n").await.ok();
    let reference = |name: &str, uid: &str| json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": name, "uid": uid}});
    let text = token(admin, "bot", reference("p", uid)).await;
    let extra = whoami(&server, &text).await.ok()["status"]["userInfo"]["extra"].clone();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], json!([uid]));
    assert_eq!(
        request(admin, "bot", reference("p", "other")).await.code,
        409
    );
    assert_eq!(request(admin, "bot", reference("nope", "")).await.code, 404);
    account(admin, "second").await;
    let (code, _, message) = request(admin, "second", reference("p", uid))
        .await
        .refused();
    assert_eq!(code, 400);
    assert!(
        message.contains("different serviceaccount name"),
        "{message}"
    );
    // The node of the pod gets it, no other node, and no token that is bound to nothing.
    let node = server.client(Some(&server.pki.node_client("n").unwrap()));
    let stranger = server.client(Some(&server.pki.node_client("m").unwrap()));
    let mut answer = request(&node, "bot", reference("p", uid)).await;
    // The authorizer hears of the binding over the cache.
    for _ in 0..200 {
        if answer.code == 201 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        answer = request(&node, "bot", reference("p", uid)).await;
    }
    answer.ok();
    assert_eq!(request(&node, "bot", json!({})).await.code, 403);
    assert_eq!(
        request(&stranger, "bot", reference("p", uid)).await.code,
        403
    );
    admin
        .delete(&format!("{PODS}/p"), &json!({"gracePeriodSeconds": 0}))
        .await
        .ok();
    assert_eq!(whoami(&server, &text).await.code, 401);
}

#[tokio::test]
async fn audiences_and_lifetimes_are_kept() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    account(admin, "bot").await;
    let answer = request(
        admin,
        "bot",
        json!({"audiences": ["vault"], "expirationSeconds": 900}),
    )
    .await
    .ok();
    assert_eq!(answer["kind"], "TokenRequest");
    assert!(answer["status"]["expirationTimestamp"].is_string());
    let text = answer["status"]["token"].as_str().unwrap();
    assert_eq!(whoami(&server, text).await.code, 401, "not for the API");
    let review = async |audiences: Value| {
        let object = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": text, "audiences": audiences}});
        admin.post(REVIEWS, &object).await.ok()["status"].clone()
    };
    let accepted = review(json!(["vault", "x"])).await;
    assert_eq!(accepted["authenticated"], true);
    assert_eq!(accepted["audiences"], json!(["vault"]));
    assert_eq!(
        accepted["user"]["username"],
        "system:serviceaccount:default:bot"
    );
    let refused = review(json!([])).await;
    assert!(refused.get("authenticated").is_none());
    assert!(
        refused["error"].as_str().unwrap().contains("audiences"),
        "{refused}"
    );
    let claims: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(text.split('.').nth(1).unwrap())
            .unwrap(),
    )
    .unwrap();
    assert_eq!(claims["aud"], json!(["vault"]));
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        900
    );
    for seconds in [0, 599, 1_i64 << 33] {
        let refused = request(admin, "bot", json!({"expirationSeconds": seconds})).await;
        assert_eq!(refused.code, 422, "{}", refused.text);
    }
    assert_eq!(request(admin, "nobody", json!({})).await.code, 404);
}

#[tokio::test]
async fn the_keys_are_published_for_service_accounts() {
    let server = TestServer::start().await;
    let admin = &server.admin;
    let document = admin.get("/.well-known/openid-configuration").await.ok();
    assert_eq!(document["issuer"], ISSUER);
    let keys = admin.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let keys = keys.ok();
    assert_eq!(keys["keys"][0]["kty"], "EC");
    assert!(keys["keys"][0].get("d").is_none());
    account(admin, "bot").await;
    let text = token(admin, "bot", json!({})).await;
    let header: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(text.split('.').next().unwrap())
            .unwrap(),
    )
    .unwrap();
    assert_eq!(header["kid"], keys["keys"][0]["kid"]);
    let bearer = format!("Bearer {text}");
    let by_account = server
        .client(None)
        .send(
            Method::GET,
            "/openid/v1/jwks",
            &[("authorization", &bearer)],
            "",
        )
        .await;
    assert_eq!(by_account.code, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_tokens_and_uses_them() {
    let server = TestServer::start().await;
    let kubectl = Kubectl::of(&server);
    kubectl.ok(&["create", "serviceaccount", "bot"]).await;
    let text = kubectl
        .ok(&[
            "create",
            "token",
            "bot",
            "--duration=1h",
            "--audience",
            ISSUER,
        ])
        .await;
    let user = whoami(&server, text.trim()).await.ok()["status"]["userInfo"].clone();
    assert_eq!(user["username"], "system:serviceaccount:default:bot");
}
