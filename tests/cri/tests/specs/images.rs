//! Image Manager, Image Consistency, Image Identifier Consistency, Image Volume.

use crate::specs;
use crate::suite::{FOREVER, Suite};
use crate::support::spec;
use hull_cri_api::v1::*;

specs! {
    "Image Manager: public image with tag should be pulled and removed" => with_tag,
    "Image Manager: public image without tag should be pulled and removed" => without_tag,
    "Image Manager: public image with digest should be pulled and removed" => with_digest,
    "Image Manager: image status should support all kinds of references" => references,
    "Image Manager: image status get image fields should not have Uid|Username empty" => users,
    "Image Manager: listImage should get exactly 3 image in the result list" => three_images,
    "Image Manager: removing image by one tag should remove all tags" => all_tags,
    "Image Consistency: should list and get image status immediately after pulling, and not after removal" => at_once,
    "Image Consistency: should not fail on simultaneous RemoveImage calls" => simultaneous,
    "Image Identifier Consistency: should return the same image identifier across all APIs" => one_identifier,
    "Image Volume: is refused by name" => image_volume,
}

async fn status(suite: &mut Suite, name: &str) -> Option<Image> {
    let request = ImageStatusRequest {
        image: Some(spec(name)),
        verbose: false,
    };
    suite
        .node
        .images
        .image_status(request)
        .await
        .unwrap()
        .into_inner()
        .image
}

async fn remove(suite: &mut Suite, name: &str) {
    let image = Some(spec(name));
    suite
        .node
        .images
        .remove_image(RemoveImageRequest { image })
        .await
        .unwrap();
}

async fn all(suite: &mut Suite) -> Vec<Image> {
    let request = ListImagesRequest::default();
    suite
        .node
        .images
        .list_images(request)
        .await
        .unwrap()
        .into_inner()
        .images
}

async fn pulled_and_removed(suite: &mut Suite, name: &str) {
    suite.node.pull(name).await;
    let image = status(suite, name).await.expect("it was pulled");
    assert!(image.size > 0 && image.id.starts_with("sha256:"));
    remove(suite, name).await;
    assert_eq!(status(suite, name).await, None);
}

async fn with_tag(suite: &mut Suite) {
    pulled_and_removed(suite, "test/plain:latest").await;
}

async fn without_tag(suite: &mut Suite) {
    pulled_and_removed(suite, "test/plain").await;
}

async fn with_digest(suite: &mut Suite) {
    suite.node.pull("test/plain").await;
    let image = status(suite, "test/plain").await.unwrap();
    let digest = image.repo_digests[0].clone();
    remove(suite, "test/plain").await;
    pulled_and_removed(suite, &digest).await;
}

async fn references(suite: &mut Suite) {
    suite.node.pull("test/plain").await;
    let image = status(suite, "test/plain").await.unwrap();
    let short = image.id.strip_prefix("sha256:").unwrap()[..12].to_string();
    let names = [
        "test/plain:latest",
        "docker.io/test/plain:latest",
        image.repo_digests[0].as_str(),
        image.id.as_str(),
        short.as_str(),
    ];
    for name in names {
        let found = status(suite, name).await;
        assert_eq!(
            found.map(|found| found.id).as_deref(),
            Some(image.id.as_str()),
            "{name}"
        );
    }
    remove(suite, "test/plain").await;
}

async fn users(suite: &mut Suite) {
    suite.node.pull("test/user").await;
    let named = status(suite, "test/user").await.unwrap();
    assert_eq!((named.username.as_str(), named.uid), ("app", None));
    remove(suite, "test/user").await;
    let root = status(suite, "busybox").await.unwrap();
    assert_eq!(root.uid, Some(Int64Value { value: 0 }));
}

async fn three_images(suite: &mut Suite) {
    let names = ["test/plain", "test/user", "test/layers"];
    for name in names {
        remove(suite, name).await;
    }
    let before = all(suite).await.len();
    for name in names {
        suite.node.pull(name).await;
    }
    assert_eq!(all(suite).await.len(), before + 3);
    for name in names {
        remove(suite, name).await;
    }
    assert_eq!(all(suite).await.len(), before);
}

/// `test/index` is busybox under another name.
async fn all_tags(suite: &mut Suite) {
    suite.node.pull("test/index").await;
    let image = status(suite, "test/index").await.unwrap();
    assert!(image.repo_tags.len() >= 2, "{:?}", image.repo_tags);
    remove(suite, "test/index").await;
    assert_eq!(status(suite, "busybox").await, None);
    suite.node.pull("busybox").await;
}

async fn at_once(suite: &mut Suite) {
    suite.node.pull("test/plain").await;
    let id = status(suite, "test/plain").await.unwrap().id;
    assert!(all(suite).await.iter().any(|image| image.id == id));
    remove(suite, "test/plain").await;
    assert!(!all(suite).await.iter().any(|image| image.id == id));
    assert_eq!(status(suite, &id).await, None);
}

async fn simultaneous(suite: &mut Suite) {
    suite.node.pull("test/plain").await;
    let removals = (0..5).map(|_| {
        let mut images = suite.node.images.clone();
        let image = Some(spec("test/plain"));
        async move { images.remove_image(RemoveImageRequest { image }).await }
    });
    for outcome in futures::future::join_all(removals).await {
        outcome.unwrap();
    }
}

async fn one_identifier(suite: &mut Suite) {
    let pulled = suite.node.pull("busybox").await;
    assert_eq!(status(suite, "busybox").await.unwrap().id, pulled);
    assert!(all(suite).await.iter().any(|image| image.id == pulled));
    let id = suite.running(FOREVER, |_| {}).await;
    assert_eq!(suite.node.status(&id).await.image_id, pulled);
    let request = ListContainersRequest::default();
    let listed = suite
        .node
        .runtime
        .list_containers(request)
        .await
        .unwrap()
        .into_inner();
    let container = listed.containers.iter().find(|one| one.id == id).unwrap();
    assert_eq!(container.image_id, pulled);
    suite.remove(&[&id]).await;
}

async fn image_volume(suite: &mut Suite) {
    let status = suite
        .refused(|config| {
            config.mounts = vec![Mount {
                container_path: "/image".into(),
                image: Some(spec("busybox")),
                readonly: true,
                ..Default::default()
            }];
        })
        .await;
    assert_eq!(status.code(), tonic::Code::Unimplemented);
    assert!(
        status.message().contains("image volumes"),
        "{}",
        status.message()
    );
}
