//! Every served kind lives from create to delete; the workloads keep their rules.

use http::Method;
use hull_api::{Registry, protobuf};
use serde_json::{Value, json};

use crate::{
    harness::{ApiClient, TestServer},
    minimal::{self, collection, minimal, template},
};

async fn live(client: &ApiClient, kind: &'static hull_api::Kind, object: Value) {
    let name = object["metadata"]["name"].as_str().unwrap().to_string();
    let path = collection(kind);
    let created = client.post(&path, &object).await.ok();
    let one = format!("{path}/{name}");
    // What the server filled in is accepted as it is.
    let same = client.put(&one, &created).await.ok();
    assert_eq!(
        same["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"],
        "{}: {created} {same}",
        kind.kind
    );
    let answer = client
        .send(Method::GET, &one, &[("accept", protobuf::MEDIA_TYPE)], "")
        .await;
    assert_eq!(
        protobuf::open(&answer.bytes).unwrap().kind,
        kind.kind,
        "{}",
        answer.text
    );
    let table = client
        .send(
            Method::GET,
            &path,
            &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")],
            "",
        )
        .await
        .ok();
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    assert_eq!(
        table["rows"][0]["cells"].as_array().unwrap().len(),
        columns,
        "{}",
        kind.kind
    );
    if kind.subresource("status").is_some() && kind.kind != "Namespace" {
        let status = client.get(&format!("{one}/status")).await.ok();
        client.put(&format!("{one}/status"), &status).await.ok();
    }
    client
        .delete(&one, &json!({"propagationPolicy": "Background"}))
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_created_listed_and_deleted() {
    let server = TestServer::start().await;
    let mut lived = 0;
    for kind in Registry::get().kinds() {
        if let Some(object) = minimal::named(kind, "minimal") {
            live(&server.admin, kind, object).await;
            lived += 1;
        }
    }
    assert!(lived >= 46, "{lived}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_workloads_are_named() {
    let server = TestServer::start().await;
    let create = async |api_version: &str, plural: &str, kind: &str, change: Value| {
        let mut object = minimal(kind);
        object["apiVersion"] = json!(api_version);
        object["kind"] = json!(kind);
        object["metadata"] = json!({"name": "x"});
        for (key, value) in change.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        let path = format!("/apis/{api_version}/namespaces/default/{plural}");
        server.admin.post(&path, &object).await.refused().2
    };
    for (api_version, plural, kind, change, message) in [
        (
            "apps/v1",
            "statefulsets",
            "StatefulSet",
            json!({"podManagementPolicy": "Random"}),
            "spec.podManagementPolicy: Invalid value: \"Random\": must be 'OrderedReady' or 'Parallel'",
        ),
        (
            "apps/v1",
            "daemonsets",
            "DaemonSet",
            json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            json!({"template": template("Always")}),
            "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            json!({"completionMode": "Indexed", "parallelism": 1}),
            "spec.completions: Required value: when completion mode is Indexed",
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            json!({"selector": {"matchLabels": {"app": "a"}}}),
            "`selector` not auto-generated",
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            json!({"manualSelector": true}),
            "spec.selector: Required value",
        ),
        (
            "batch/v1",
            "jobs",
            "Job",
            json!({"manualSelector": true, "selector": {"matchLabels": {"app": "b"}}}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
        ),
        (
            "batch/v1",
            "cronjobs",
            "CronJob",
            json!({"jobTemplate": {"spec": {"template": template("Never"), "selector": {"matchLabels": {"app": "a"}}}}}),
            "spec.jobTemplate.spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"a\"}}: `selector` will be auto-generated",
        ),
        (
            "batch/v1",
            "cronjobs",
            "CronJob",
            json!({"schedule": "61 * * * *"}),
            "spec.schedule: Invalid value: \"61 * * * *\": value (61) out of range [0, 59]: 61",
        ),
        (
            "policy/v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
            json!({"minAvailable": "120%"}),
            "spec.minAvailable: Invalid value: \"120%\": must not be greater than 100%",
        ),
    ] {
        let told = create(api_version, plural, kind, change).await;
        assert!(told.ends_with(message), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_selects_its_own_pods() {
    let server = TestServer::start().await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = |name: &str| {
        let mut job = minimal("Job");
        job["metadata"] = json!({"name": name});
        job
    };
    let made = server.admin.post(jobs, &job("own")).await.ok();
    let uid = &made["metadata"]["uid"];
    assert_eq!(
        made["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}})
    );
    assert_eq!(
        made["spec"]["template"]["metadata"]["labels"],
        json!({"app": "a", "batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
            "batch.kubernetes.io/job-name": "own", "job-name": "own"})
    );
    // What was read from another job: its labels are not those of this one.
    let mut copied = job("copied");
    copied["spec"]["template"] = made["spec"]["template"].clone();
    let (code, _, message) = server.admin.post(jobs, &copied).await.refused();
    assert_eq!(code, 422);
    for label in ["controller-uid", "job-name"] {
        let path = format!("spec.template.metadata.labels[batch.kubernetes.io/{label}]");
        assert!(
            message.contains(&format!("{path}: Invalid value")),
            "{message}"
        );
    }
    assert!(message.contains("must be 'copied'"), "{message}");
    let mut manual = job("manual");
    manual["spec"]["manualSelector"] = json!(true);
    manual["spec"]["selector"] = json!({"matchLabels": {"app": "a"}});
    let made = server.admin.post(jobs, &manual).await.ok();
    assert_eq!(made["spec"]["selector"], manual["spec"]["selector"]);
    assert_eq!(
        made["spec"]["template"]["metadata"]["labels"],
        json!({"app": "a"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn scale_and_status_are_parts_of_their_own() {
    let server = TestServer::start().await;
    let client = &server.admin;
    for (path, kind) in [
        (
            "/apis/apps/v1/namespaces/default/statefulsets",
            "StatefulSet",
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            "ReplicationController",
        ),
    ] {
        let mut object = minimal(kind);
        object["metadata"] = json!({"name": "x"});
        object["status"] = json!({"replicas": 5});
        let created = client.post(path, &object).await.ok();
        assert!(created["status"].get("replicas").is_none());
        assert_eq!(created["metadata"]["generation"], 1);
        let one = format!("{path}/x");
        let mut scale = client.get(&format!("{one}/scale")).await.ok();
        assert_eq!(scale["status"]["selector"], "app=a");
        scale["spec"]["replicas"] = json!(4);
        client.put(&format!("{one}/scale"), &scale).await.ok();
        let status = json!({"status": {"replicas": 4}, "spec": {"replicas": 9}});
        client
            .patch(&format!("{one}/status"), "merge-patch", &status)
            .await
            .ok();
        let now = client.get(&one).await.ok();
        assert_eq!(now["spec"]["replicas"], 4);
        assert_eq!(now["status"]["replicas"], 4);
        assert_eq!(now["metadata"]["generation"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_an_autoscaler_are_one_object() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = |version: &str| {
        format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers")
    };
    let mut object = minimal("HorizontalPodAutoscaler");
    object["metadata"] = json!({"name": "x"});
    object["spec"]["targetCPUUtilizationPercentage"] = json!(60);
    client.post(&path("v1"), &object).await.ok();
    let new = client.get(&format!("{}/x", path("v2"))).await.ok();
    assert_eq!(new["apiVersion"], "autoscaling/v2");
    assert_eq!(
        new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"],
        60
    );
    let old = client.get(&format!("{}/x", path("v1"))).await.ok();
    assert_eq!(old["spec"]["targetCPUUtilizationPercentage"], 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_a_certificate_says_who_really_asks() {
    let server = TestServer::start().await;
    let client = &server.admin;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let mut object = minimal("CertificateSigningRequest");
    object["metadata"] = json!({"name": "x"});
    object["spec"]["username"] = json!("system:node:other");
    let created = client.post(path, &object).await.ok();
    assert_ne!(created["spec"]["username"], "system:node:other");
    assert!(
        created["spec"]["groups"]
            .as_array()
            .is_some_and(|groups| groups.contains(&json!("system:masters"))),
        "{created}"
    );
    let approval = format!("{path}/x/approval");
    let mut approved = created.clone();
    approved["spec"]["signerName"] = json!("example.com/other");
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let approved = client.put(&approval, &approved).await.ok();
    assert_eq!(approved["spec"], created["spec"]);
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    let mut denied = approved.clone();
    denied["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}]});
    assert_eq!(client.put(&approval, &denied).await.refused().0, 422);
}
