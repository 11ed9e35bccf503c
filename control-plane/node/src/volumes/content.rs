//! What the files of a volume are.

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Volume};

use super::atomic::{FileContent, Payload};
use crate::env::ConfigError;
use crate::env::fields::PodFacts;
use crate::objects::{ObjectKind, ObjectSnapshot};
use crate::volumes::ownership;
use crate::volumes::tokens::PodTokens;

/// The API server's default for `defaultMode`.
const DEFAULT_MODE: i32 = 0o644;

/// The files of a volume; `None` for an emptyDir, whose content is the guest's.
pub fn payload(
    volume: &Volume,
    facts: &PodFacts<'_>,
    objects: &ObjectSnapshot,
    tokens: &PodTokens,
) -> Result<Option<Payload>, ConfigError> {
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let wanted = Wanted::new(
            source.items.as_deref(),
            source.optional,
            source.default_mode,
        );
        add_object(
            &mut payload,
            ObjectKind::ConfigMap,
            &source.name,
            &wanted,
            objects,
        )?;
    } else if let Some(source) = &volume.secret {
        let wanted = Wanted::new(
            source.items.as_deref(),
            source.optional,
            source.default_mode,
        );
        let name = source.secret_name.as_deref().unwrap_or_default();
        add_object(&mut payload, ObjectKind::Secret, name, &wanted, objects)?;
    } else if let Some(source) = &volume.downward_api {
        add_fields(
            &mut payload,
            source.items.as_deref(),
            source.default_mode,
            facts,
        )?;
    } else if let Some(source) = &volume.projected {
        for projection in source.sources.iter().flatten() {
            let mode = source.default_mode;
            if let Some(map) = &projection.config_map {
                let wanted = Wanted::new(map.items.as_deref(), map.optional, mode);
                add_object(
                    &mut payload,
                    ObjectKind::ConfigMap,
                    &map.name,
                    &wanted,
                    objects,
                )?;
            } else if let Some(secret) = &projection.secret {
                let wanted = Wanted::new(secret.items.as_deref(), secret.optional, mode);
                add_object(
                    &mut payload,
                    ObjectKind::Secret,
                    &secret.name,
                    &wanted,
                    objects,
                )?;
            } else if let Some(fields) = &projection.downward_api {
                add_fields(&mut payload, fields.items.as_deref(), mode, facts)?;
            } else if let Some(token) = &projection.service_account_token {
                let (owner, mode) =
                    ownership::of_token(facts.pod, mode_bits(mode.unwrap_or(DEFAULT_MODE)));
                let data = tokens.get(token)?.as_bytes().to_vec();
                payload.insert(
                    token.path.clone(),
                    FileContent {
                        uid: owner,
                        ..FileContent::new(data, mode)
                    },
                );
            } else {
                return Err(unimplemented("clusterTrustBundle or podCertificate"));
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

fn unimplemented(source: &str) -> ConfigError {
    ConfigError::Unimplemented(format!("projected volume source {source}"))
}

struct Wanted<'a> {
    items: &'a [KeyToPath],
    optional: bool,
    default_mode: i32,
}

impl<'a> Wanted<'a> {
    fn new(items: Option<&'a [KeyToPath]>, optional: Option<bool>, mode: Option<i32>) -> Self {
        Wanted {
            items: items.unwrap_or_default(),
            optional: optional.unwrap_or(false),
            default_mode: mode.unwrap_or(DEFAULT_MODE),
        }
    }
}

fn mode_bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o7777
}

fn add_object(
    payload: &mut Payload,
    kind: ObjectKind,
    name: &str,
    wanted: &Wanted<'_>,
    objects: &ObjectSnapshot,
) -> Result<(), ConfigError> {
    let Some(object) = objects.get(kind, name, wanted.optional)? else {
        return Ok(());
    };
    if wanted.items.is_empty() {
        for (key, data) in &object.data {
            let mode = mode_bits(wanted.default_mode);
            payload.insert(key.clone(), FileContent::new(data.clone(), mode));
        }
        return Ok(());
    }
    for item in wanted.items {
        match object.data.get(&item.key) {
            Some(data) => {
                let mode = mode_bits(item.mode.unwrap_or(wanted.default_mode));
                payload.insert(item.path.clone(), FileContent::new(data.clone(), mode));
            }
            None if wanted.optional => {}
            None => {
                return Err(ConfigError::Invalid(format!(
                    "references non-existent {} key: {}",
                    if kind == ObjectKind::Secret {
                        "secret"
                    } else {
                        "config"
                    },
                    item.key
                )));
            }
        }
    }
    Ok(())
}

fn add_fields(
    payload: &mut Payload,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    facts: &PodFacts<'_>,
) -> Result<(), ConfigError> {
    // A resourceFieldRef in a file always names its container.
    let nobody = Container::default();
    for item in items.unwrap_or_default() {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => facts.file_field(&field.field_path)?,
            (None, Some(resource)) => facts.resource(&nobody, resource)?,
            (None, None) => {
                return Err(ConfigError::Invalid(format!(
                    "downwardAPI item {} has neither fieldRef nor resourceFieldRef",
                    item.path
                )));
            }
        };
        let mode = mode_bits(item.mode.or(default_mode).unwrap_or(DEFAULT_MODE));
        payload.insert(item.path.clone(), FileContent::new(text.into_bytes(), mode));
    }
    Ok(())
}
