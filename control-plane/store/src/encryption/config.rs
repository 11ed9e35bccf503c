//! The rules' file: Kubernetes' EncryptionConfiguration (apiserver.config.k8s.io/v1).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::seal::Sealer;

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// No YAML, or not of this shape.
    #[error("encryption configuration: {0}")]
    Syntax(String),
    /// Another kind or version.
    #[error("encryption configuration: it is {0}, not {KIND} of {API_VERSION}")]
    Kind(String),
    /// An entry is wrong.
    #[error("encryption configuration: resources[{entry}]: {reason}")]
    Entry {
        /// Which, from 0.
        entry: usize,
        /// What is wrong.
        reason: String,
    },
    /// A provider that is not there.
    #[error("encryption configuration: unimplemented: the {0} provider")]
    Unimplemented(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<Provider>,
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Provider {
    aesgcm: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Identity>,
    aescbc: Option<serde::de::IgnoredAny>,
    kms: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

/// Keys that begin so are written and read so.
pub(super) struct Rule {
    pub prefix: String,
    pub sealers: std::sync::Arc<[Sealer]>,
}

/// Which keys are encrypted, and how. Of several rules for a key the first counts.
pub struct Rules {
    pub(super) rules: Vec<Rule>,
}

impl Rules {
    /// Reads a configuration. `prefixes` gives the keys' prefixes of a resource as the file names
    /// it (`secrets`, `deployments.apps`, `*.apps`, `*.*`); none when there is no such resource.
    ///
    /// # Errors
    /// When the file is malformed, names what is unknown, or has unusable keys.
    pub fn parse(
        text: &str,
        prefixes: impl Fn(&str) -> Vec<String>,
    ) -> Result<Self, EncryptionError> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| EncryptionError::Syntax(error.to_string()))?;
        if file.api_version != API_VERSION || file.kind != KIND {
            let found = format!("{} of {}", file.kind, file.api_version);
            return Err(EncryptionError::Kind(found));
        }
        let mut rules = Vec::new();
        for (position, entry) in file.resources.into_iter().enumerate() {
            let wrong = |reason: String| EncryptionError::Entry {
                entry: position,
                reason,
            };
            let mut sealers = Vec::new();
            for provider in entry.providers {
                add(provider, &mut sealers, &wrong)?;
            }
            if sealers.is_empty() {
                return Err(wrong("it has no provider".into()));
            }
            let sealers: std::sync::Arc<[Sealer]> = sealers.into();
            for resource in entry.resources {
                let found = prefixes(&resource);
                if found.is_empty() {
                    return Err(wrong(format!("there is no resource {resource:?}")));
                }
                rules.extend(found.into_iter().map(|prefix| Rule {
                    prefix,
                    sealers: sealers.clone(),
                }));
            }
        }
        Ok(Rules { rules })
    }

    /// Which rule a key has.
    pub(super) fn position(&self, key: &str) -> Option<usize> {
        self.rules
            .iter()
            .position(|rule| key.starts_with(&rule.prefix))
    }
}

fn add(
    provider: Provider,
    sealers: &mut Vec<Sealer>,
    wrong: &impl Fn(String) -> EncryptionError,
) -> Result<(), EncryptionError> {
    let before = sealers.len();
    if provider.aescbc.is_some() {
        return Err(EncryptionError::Unimplemented("aescbc"));
    }
    if provider.kms.is_some() {
        return Err(EncryptionError::Unimplemented("kms"));
    }
    type Make = fn(&str, &[u8]) -> Result<Sealer, &'static str>;
    let kinds: [(Option<Keys>, Make); 2] = [
        (provider.aesgcm, Sealer::aesgcm),
        (provider.secretbox, Sealer::secretbox),
    ];
    for (keys, make) in kinds {
        for key in keys.into_iter().flat_map(|keys| keys.keys) {
            let named = |reason: &str| wrong(format!("key {:?}: {reason}", key.name));
            if key.name.is_empty() || key.name.contains(':') {
                return Err(named("its name is empty or has a colon"));
            }
            let secret = STANDARD
                .decode(&key.secret)
                .map_err(|_| named("its secret is no base64"))?;
            sealers.push(make(&key.name, &secret).map_err(named)?);
        }
    }
    if provider.identity.is_some() {
        sealers.push(Sealer::identity());
    }
    if sealers.len() == before {
        return Err(wrong("a provider has no keys".into()));
    }
    Ok(())
}
