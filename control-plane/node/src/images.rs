//! Image pulls: the pull policy, and credentials from imagePullSecrets.

use std::collections::BTreeMap;

use base64::Engine;
use hull_cri_api::v1 as cri;
use k8s_openapi::api::core::v1::{Container, Pod};
use serde::Deserialize;

use crate::objects::{ObjectKind, ObjectSnapshot};

/// The registry of image names without one.
const DEFAULT_REGISTRY: &str = "docker.io";

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every container start.
    Always,
    /// When the node does not have the image.
    IfNotPresent,
    /// Never.
    Never,
}

/// A container's policy: as written, else Always for `:latest` or no tag, else IfNotPresent.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let image = container.image.as_deref().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest =
                !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest");
            if latest {
                PullPolicy::Always
            } else {
                PullPolicy::IfNotPresent
            }
        }
    }
}

/// What is wrong with an image name, in Kubernetes' words; `None` when nothing is. The runtime
/// checks the rest.
pub fn invalid_name(image: &str) -> Option<String> {
    let bad = image.is_empty()
        || image.chars().any(|c| c.is_whitespace() || c.is_control())
        || image.rsplit('/').next().is_some_and(str::is_empty);
    bad.then(|| {
        format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": invalid reference format")
    })
}

/// The registry of an image name: the part before the first `/` when it looks like a host.
pub fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DEFAULT_REGISTRY,
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerConfig {
    auths: BTreeMap<String, DockerAuth>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct DockerAuth {
    username: String,
    password: String,
    auth: String,
    identitytoken: String,
    registrytoken: String,
}

/// Credentials for an image from the pod's imagePullSecrets: every entry whose registry matches,
/// the longest key first. Secrets that are missing or malformed are passed over, as in Kubernetes:
/// the pull then fails with the registry's own words.
pub fn credentials(pod: &Pod, image: &str, objects: &ObjectSnapshot) -> Vec<cri::AuthConfig> {
    let secrets = pod
        .spec
        .iter()
        .flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let mut found: Vec<(usize, cri::AuthConfig)> = Vec::new();
    for secret in secrets {
        let Ok(Some(data)) = objects.get(ObjectKind::Secret, &secret.name, true) else {
            continue;
        };
        let Some(config) = parse(&data.data) else {
            tracing::warn!(
                secret = secret.name,
                "imagePullSecret holds no docker configuration"
            );
            continue;
        };
        for (server, auth) in config.auths {
            if matches_image(&server, image) {
                found.push((server.len(), auth_config(&server, auth)));
            }
        }
    }
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

fn parse(data: &BTreeMap<String, Vec<u8>>) -> Option<DockerConfig> {
    if let Some(json) = data.get(".dockerconfigjson") {
        return serde_json::from_slice(json).ok();
    }
    let auths = serde_json::from_slice(data.get(".dockercfg")?).ok()?;
    Some(DockerConfig { auths })
}

/// `host[:port][/path]`, with or without a scheme and API version, matches images below it.
fn matches_image(server: &str, image: &str) -> bool {
    let server = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let server = server.trim_end_matches('/');
    let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
    let (host, path) = server.split_once('/').unwrap_or((server, ""));
    let wanted = registry(image);
    let same_host = host == wanted
        || (wanted == DEFAULT_REGISTRY
            && matches!(host, "index.docker.io" | "registry-1.docker.io"))
        || wildcard(host, wanted);
    let repository = match image.split_once('/') {
        Some((host, rest)) if host == wanted => rest,
        _ => image,
    };
    same_host && (path.is_empty() || repository.starts_with(path))
}

/// `*.example.com` stands for one label.
fn wildcard(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len()
        && pattern
            .iter()
            .zip(&host)
            .all(|(pattern, label)| *pattern == "*" || pattern == label)
}

fn auth_config(server: &str, auth: DockerAuth) -> cri::AuthConfig {
    let mut config = cri::AuthConfig {
        username: auth.username,
        password: auth.password,
        server_address: server.to_owned(),
        identity_token: auth.identitytoken,
        registry_token: auth.registrytoken,
        ..Default::default()
    };
    if config.username.is_empty()
        && let Ok(decoded) = base64::engine::general_purpose::STANDARD.decode(auth.auth.trim())
        && let Ok(text) = String::from_utf8(decoded)
        && let Some((username, password)) = text.split_once(':')
    {
        config.username = username.to_owned();
        config.password = password.trim_end_matches('\0').to_owned();
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::snapshot;
    use serde_json::json;

    #[test]
    fn policy_defaults_follow_the_tag() {
        let policy = |image: &str| {
            pull_policy(&Container {
                image: Some(image.into()),
                ..Default::default()
            })
        };
        assert_eq!(policy("nginx"), PullPolicy::Always);
        assert_eq!(policy("host:5000/nginx"), PullPolicy::Always);
        assert_eq!(policy("host:5000/nginx:latest"), PullPolicy::Always);
        assert_eq!(policy("nginx:1.29"), PullPolicy::IfNotPresent);
        assert_eq!(policy("nginx@sha256:00"), PullPolicy::IfNotPresent);
    }

    #[test]
    fn credentials_match_registry_and_path() {
        let secret = json!({"auths": {
            "reg.example:5000": {"auth": "dTpw"},
            "https://reg.example:5000/team/": {"username": "t", "password": "q"},
            "*.wild.example": {"username": "w", "password": "w"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "h"}}})
        .to_string();
        let pod: Pod = serde_json::from_value(json!({"metadata": {},
            "spec": {"containers": [], "imagePullSecrets": [{"name": "pull"}, {"name": "gone"}]}}))
        .unwrap();
        let objects = snapshot(&[(
            ObjectKind::Secret,
            "pull",
            &[(".dockerconfigjson", secret.as_str())],
        )]);
        let users = |image: &str| -> Vec<String> {
            credentials(&pod, image, &objects)
                .into_iter()
                .map(|auth| auth.username)
                .collect()
        };
        assert_eq!(users("reg.example:5000/team/app:1"), ["t", "u"]);
        assert_eq!(users("reg.example:5000/other"), ["u"]);
        assert_eq!(users("a.wild.example/x"), ["w"]);
        assert_eq!(users("b.a.wild.example/x"), Vec::<String>::new());
        assert_eq!(users("nginx"), ["hub"]);
    }

    #[test]
    fn image_names_that_cannot_be_parsed_are_refused() {
        assert!(invalid_name("nginx:1").is_none());
        assert!(invalid_name("").is_some());
        assert!(invalid_name("a b").is_some());
        assert!(invalid_name("host/").is_some());
    }
}
