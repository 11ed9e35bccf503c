//! Image references, normalised as Docker does.

use std::fmt;
use std::str::FromStr;

use oci_spec::distribution::{ParseError, Reference};
use thiserror::Error;

/// A string is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reference:?}: {reason}")]
pub struct ReferenceError {
    /// What was given.
    pub reference: String,
    /// Why it is none.
    pub reason: String,
}

/// A normalised reference: registry, repository, and a tag or a digest.
///
/// `nginx` is `docker.io/library/nginx:latest`. A reference with both a tag and a digest means
/// the digest; the tag is dropped, since nothing says that the registry still agrees with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    registry: String,
    repository: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Version {
    Tag(String),
    Digest(String),
}

impl ImageReference {
    /// The registry's name, such as `docker.io` or `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry, such as `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, where the reference has one.
    pub fn digest(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// The tag, where the reference has no digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// What a manifest is asked for by: the tag or the digest.
    pub(crate) fn version(&self) -> &str {
        match &self.version {
            Version::Tag(version) | Version::Digest(version) => version,
        }
    }

    /// The reference of `digest` in the same repository.
    pub(crate) fn with_digest(&self, digest: &str) -> Self {
        Self {
            version: Version::Digest(digest.to_owned()),
            ..self.clone()
        }
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: String| ReferenceError {
            reference: text.chars().take(512).collect(),
            reason,
        };
        let parsed: Reference = text.parse().map_err(|e: ParseError| error(e.to_string()))?;
        let version = match (parsed.digest(), parsed.tag()) {
            (Some(digest), _) if digest.starts_with("sha256:") => {
                if digest.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(error("a digest is written in lower case".to_owned()));
                }
                Version::Digest(digest.to_owned())
            }
            (Some(digest), _) => {
                return Err(error(format!("digest {digest}: only sha256 is supported")));
            }
            (None, Some(tag)) => Version::Tag(tag.to_owned()),
            (None, None) => return Err(error("neither tag nor digest".to_owned())),
        };
        Ok(Self {
            registry: parsed.registry().to_owned(),
            repository: parsed.repository().to_owned(),
            version,
        })
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = match self.version {
            Version::Tag(_) => ':',
            Version::Digest(_) => '@',
        };
        write!(
            f,
            "{}/{}{separator}{}",
            self.registry,
            self.repository,
            self.version()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_like_docker() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (given, normal) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_owned()),
            ("team/app", "docker.io/team/app:latest".to_owned()),
            (
                "index.docker.io/nginx",
                "docker.io/library/nginx:latest".to_owned(),
            ),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/a/b:v1", "127.0.0.1:5000/a/b:v1".to_owned()),
            ("quay.io/x/y", "quay.io/x/y:latest".to_owned()),
            (
                &format!("nginx@{digest}"),
                format!("docker.io/library/nginx@{digest}"),
            ),
            (
                &format!("nginx:1@{digest}"),
                format!("docker.io/library/nginx@{digest}"),
            ),
        ] {
            let parsed: ImageReference = given.parse().unwrap();
            assert_eq!(parsed.to_string(), normal, "{given}");
            assert_eq!(
                parsed.to_string().parse::<ImageReference>().unwrap(),
                parsed
            );
        }
    }

    #[test]
    fn refuses_what_is_not_a_reference() {
        for given in [
            "",
            "UPPER",
            "a b",
            "nginx:",
            "nginx@sha256:12",
            "../etc/passwd",
            "http://x/y",
        ] {
            assert!(given.parse::<ImageReference>().is_err(), "{given}");
        }
        let sha512 = format!("nginx@sha512:{}", "0".repeat(128));
        assert!(sha512.parse::<ImageReference>().is_err());
    }
}
