//! Manifests, indexes and the choice of a platform (OCI image-spec manifest.md, image-index.md;
//! Docker image manifest version 2 schema 2).

use oci_spec::image::{Arch, ImageIndex, ImageManifest, Os};
use serde::Deserialize;

use crate::error::PullCause;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// `Accept` header of a manifest request.
pub(super) const ACCEPTED_MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Operating system and architecture that images must be for.
pub(crate) const OS: Os = Os::Linux;
/// See [`OS`].
pub(crate) const ARCHITECTURE: Arch = Arch::Amd64;

/// A manifest as a registry answers it.
pub(crate) enum Manifest {
    /// One image.
    Image(Box<ImageManifest>),
    /// One image for several platforms.
    Index(Box<ImageIndex>),
}

/// What decides how a manifest is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest. The media type in the document decides, then the one of the answer.
pub(crate) fn parse_manifest(
    body: &[u8],
    content_type: Option<&str>,
) -> Result<Manifest, PullCause> {
    let invalid = |e: serde_json::Error| PullCause::InvalidImage(format!("manifest: {e}"));
    let shape: Shape = serde_json::from_slice(body).map_err(invalid)?;
    if shape.schema_version == Some(1) {
        let reason = "Docker manifest schema 1, which registries gave up in 2019";
        return Err(PullCause::Unsupported(reason.to_owned()));
    }
    // One document that reads as either would be two images under one digest (CVE-2021-41190).
    if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
        let reason = "manifest: both an index and an image";
        return Err(PullCause::InvalidImage(reason.to_owned()));
    }
    let content_type = content_type.map(|text| text.split(';').next().unwrap_or(text).trim());
    let kinds = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
    let media_type = match shape.media_type.as_deref() {
        Some(media_type) => Some(media_type),
        None => content_type.filter(|media_type| kinds.contains(media_type)),
    };
    match media_type {
        Some(OCI_INDEX | DOCKER_LIST) => Ok(Manifest::Index(Box::new(
            serde_json::from_slice(body).map_err(invalid)?,
        ))),
        Some(OCI_MANIFEST | DOCKER_MANIFEST) => Ok(Manifest::Image(Box::new(
            serde_json::from_slice(body).map_err(invalid)?,
        ))),
        Some(other) => Err(PullCause::Unsupported(format!("manifest of type {other}"))),
        None if shape.manifests.is_some() => Ok(Manifest::Index(Box::new(
            serde_json::from_slice(body).map_err(invalid)?,
        ))),
        None => Ok(Manifest::Image(Box::new(
            serde_json::from_slice(body).map_err(invalid)?,
        ))),
    }
}

/// The digest of the index's entry for this machine.
pub(crate) fn choose_platform(index: &ImageIndex) -> Result<String, PullCause> {
    let entries = index.manifests();
    let chosen = entries.iter().find(|entry| {
        entry.platform().as_ref().is_some_and(|platform| {
            *platform.os() == OS && *platform.architecture() == ARCHITECTURE
        })
    });
    if let Some(entry) = chosen {
        return Ok(entry.digest().to_string());
    }
    // An index with a single entry without a platform is an image with a cover sheet.
    if let [only] = entries.as_slice()
        && only.platform().is_none()
    {
        return Ok(only.digest().to_string());
    }
    let available = entries
        .iter()
        .map(|entry| match entry.platform() {
            Some(platform) => platform_name(platform.os(), platform.architecture()),
            None => "unnamed".to_owned(),
        })
        .collect::<Vec<_>>();
    Err(no_matching_platform(available.join(", ")))
}

/// Refuses an image whose configuration says that it is for another kind of machine.
pub(crate) fn check_platform(os: &Os, architecture: &Arch) -> Result<(), PullCause> {
    let unset = os.to_string().is_empty() && architecture.to_string().is_empty();
    if unset || (*os == OS && *architecture == ARCHITECTURE) {
        return Ok(());
    }
    Err(no_matching_platform(platform_name(os, architecture)))
}

fn no_matching_platform(available: String) -> PullCause {
    PullCause::NoMatchingPlatform {
        wanted: platform_name(&OS, &ARCHITECTURE),
        available: if available.is_empty() {
            "none".to_owned()
        } else {
            available
        },
    }
}

fn platform_name(os: &Os, architecture: &Arch) -> String {
    format!("{os}/{architecture}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str)]) -> ImageIndex {
        let manifests: Vec<_> = platforms
            .iter()
            .enumerate()
            .map(|(number, (os, architecture))| {
                serde_json::json!({
                    "mediaType": OCI_MANIFEST,
                    "size": 7,
                    "digest": format!("sha256:{}", format!("{number:x}").repeat(64)),
                    "platform": {"os": os, "architecture": architecture},
                })
            })
            .collect();
        let body = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
        match parse_manifest(body.as_bytes(), None).unwrap() {
            Manifest::Index(index) => *index,
            Manifest::Image(_) => panic!("an image"),
        }
    }

    #[test]
    fn chooses_linux_amd64() {
        let index = index(&[("linux", "arm64"), ("windows", "amd64"), ("linux", "amd64")]);
        assert_eq!(
            choose_platform(&index).unwrap(),
            format!("sha256:{}", "2".repeat(64))
        );
    }

    #[test]
    fn names_the_platforms_there_are() {
        let error = choose_platform(&index(&[("linux", "arm64"), ("linux", "s390x")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no matching platform: wanted linux/amd64, image has linux/arm64, linux/s390x"
        );
    }

    #[test]
    fn refuses_a_manifest_with_two_readings() {
        let body = br#"{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}"#;
        assert!(matches!(
            parse_manifest(body, None),
            Err(PullCause::InvalidImage(_))
        ));
    }

    #[test]
    fn refuses_schema_1_and_foreign_types() {
        let old = br#"{"schemaVersion":1,"fsLayers":[]}"#;
        assert!(matches!(
            parse_manifest(old, None),
            Err(PullCause::Unsupported(_))
        ));
        let foreign = br#"{"schemaVersion":2,"mediaType":"application/x"}"#;
        assert!(matches!(
            parse_manifest(foreign, None),
            Err(PullCause::Unsupported(_))
        ));
        assert!(matches!(
            parse_manifest(b"<html>", None),
            Err(PullCause::InvalidImage(_))
        ));
    }
}
