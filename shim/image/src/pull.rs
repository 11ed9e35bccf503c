//! One pull, from reference to committed image.
//!
//! ```text
//! for each endpoint: manifest ─► image manifest ─► [lock of the image id] ─► stored already? ─► name it
//!                                                          │ no
//!                    config ─► layers (a few at a time) ─► convert ─► commit
//! ```
//! An endpoint that cannot give the image leaves the turn to the next one.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use tempfile::NamedTempFile;
use tokio::sync::OwnedMutexGuard;
use tracing::{info, warn};

use crate::config::LAYERS_AT_ONCE;
use crate::erofs::{ErofsError, write_image};
use crate::error::{PullCause, PullError, PullErrorKind};
use crate::image::{Image, ImageConfig};
use crate::index::Record;
use crate::layer::{
    LayerDigests, Tree, TreeLimits, UncompressedBudget, apply_layer, is_layer_type,
};
use crate::reference::ImageReference;
use crate::registry::{
    BlobRequest, Manifest, RegistryAuth, Session, check_platform, choose_platform, fetch_layer,
    parse_manifest,
};
use crate::store::{ImageStore, Inner};

/// Indexes within indexes that are followed to an image.
const MAX_INDEX_DEPTH: usize = 3;
/// Names, link targets and extended attributes of one image, held in memory while it is
/// converted, in bytes.
const MAX_METADATA_BYTES: u64 = 512 << 20;
/// Label of every image's filesystem.
const VOLUME_NAME: &str = "hull-image";

/// A pull at one endpoint.
struct Attempt<'a> {
    store: &'a Arc<Inner>,
    reference: &'a ImageReference,
    session: Session,
}

/// What a registry says a reference is.
struct Resolved {
    manifest: ImageManifest,
    /// Digest of what the reference itself names: the index, where there is one.
    digest: String,
}

/// Everything that the conversion needs.
struct Fetched {
    configuration: ImageConfiguration,
    spools: Vec<File>,
}

pub(crate) async fn pull(
    store: &ImageStore,
    reference: &str,
    auth: RegistryAuth,
) -> Result<Image, PullError> {
    let parsed: ImageReference = match reference.parse() {
        Ok(parsed) => parsed,
        Err(e) => return Err(PullError::new(reference, "no registry", e.into())),
    };
    let image = parsed.to_string();
    let endpoints = store
        .inner
        .registries
        .endpoints(parsed.registry())
        .map_err(|e| PullError::new(&image, parsed.registry(), PullCause::Internal(e)))?;
    let started = Instant::now();
    let mut failures: Vec<(String, PullCause)> = Vec::new();
    for endpoint in endpoints {
        let session = Session::new(endpoint, parsed.repository(), &auth);
        let address = session.address();
        let attempt = Attempt {
            store: &store.inner,
            reference: &parsed,
            session,
        };
        match attempt.run().await {
            Ok(pulled) => {
                info!(
                    image,
                    id = %pulled.id,
                    registry = address,
                    bytes = pulled.size_bytes,
                    milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "image pulled"
                );
                return Ok(pulled);
            }
            Err(cause) => {
                warn!(image, registry = address, %cause, "image could not be pulled");
                let ours = matches!(
                    cause.kind(),
                    PullErrorKind::ResourceExhausted | PullErrorKind::Internal
                );
                failures.push((address, cause));
                if ours {
                    break;
                }
            }
        }
    }
    Err(verdict(&image, parsed.registry(), failures))
}

/// One error for all that was tried. The last endpoint's word counts, except that "unavailable"
/// says less than a definite answer of an earlier one.
fn verdict(image: &str, registry: &str, mut failures: Vec<(String, PullCause)>) -> PullError {
    let definite = |(_, cause): &(String, PullCause)| cause.kind() != PullErrorKind::Unavailable;
    let deciding = failures
        .iter()
        .rposition(definite)
        .or(failures.len().checked_sub(1));
    let Some(deciding) = deciding else {
        let cause = PullCause::Internal("no endpoint is configured".to_owned());
        return PullError::new(image, registry, cause);
    };
    let (address, cause) = failures.remove(deciding);
    let mut error = PullError::new(image, &address, cause);
    error.tried = failures
        .into_iter()
        .map(|(address, cause)| (address, cause.to_string()))
        .collect();
    error
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Image, PullCause> {
        let resolved = self.resolve().await?;
        let id = resolved.manifest.config().digest().to_string();
        self.check(&resolved.manifest)?;
        let repo_digest = self.reference.with_digest(&resolved.digest).to_string();
        let guard = self.store.conversion_lock(&id).lock_owned().await;
        let fetched = if self.store.has(&id) {
            None
        } else {
            Some(self.fetch(&resolved.manifest).await?)
        };
        let store = Arc::clone(self.store);
        let reference = self.reference.clone();
        // Not stopped when the caller goes away: it ends in a committed image or in nothing.
        let work = move || finish(&store, &id, &reference, &repo_digest, fetched, guard);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|e| Err(PullCause::Internal(format!("converting the image: {e}"))))
    }

    /// Follows the reference to the manifest of one image for this machine.
    async fn resolve(&self) -> Result<Resolved, PullCause> {
        let limit = self.store.limits.max_manifest_bytes;
        let mut raw = self
            .session
            .manifest(self.reference.version(), limit)
            .await?;
        let digest = raw.digest.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            match parse_manifest(&raw.body, raw.content_type.as_deref())? {
                Manifest::Image(manifest) => {
                    return Ok(Resolved {
                        manifest: *manifest,
                        digest,
                    });
                }
                Manifest::Index(index) => {
                    let chosen = choose_platform(&index)?;
                    check_digest("manifest", &chosen)?;
                    raw = self.session.manifest(&chosen, limit).await?;
                }
            }
        }
        let reason = format!("indexes nested deeper than {MAX_INDEX_DEPTH}");
        Err(PullCause::InvalidImage(reason))
    }

    /// Refuses, before anything is downloaded, what could not be used.
    fn check(&self, manifest: &ImageManifest) -> Result<(), PullCause> {
        let limits = &self.store.limits;
        let layers = manifest.layers();
        if layers.len() > limits.max_layers {
            return Err(PullCause::TooLarge {
                what: "number of layers".to_owned(),
                actual: layers.len() as u64,
                limit: limits.max_layers as u64,
            });
        }
        check_digest("config", manifest.config().digest().as_ref())?;
        let mut bytes: u64 = 0;
        for (number, layer) in layers.iter().enumerate() {
            check_digest(&format!("layer {number}"), layer.digest().as_ref())?;
            let media_type = layer.media_type().to_string();
            if !is_layer_type(&media_type) {
                let what = format!("layer {number} of type {media_type}");
                return Err(PullCause::Unsupported(what));
            }
            bytes = bytes.saturating_add(layer.size());
        }
        if bytes > limits.max_uncompressed_bytes {
            return Err(PullCause::TooLarge {
                what: "layers".to_owned(),
                actual: bytes,
                limit: limits.max_uncompressed_bytes,
            });
        }
        Ok(())
    }

    async fn fetch(&self, manifest: &ImageManifest) -> Result<Fetched, PullCause> {
        let limits = &self.store.limits;
        let config = manifest.config();
        let digest = config.digest().to_string();
        let limit = limits.max_config_bytes;
        let text = self
            .session
            .small_blob("config", &digest, config.size(), limit)
            .await?;
        let configuration: ImageConfiguration = serde_json::from_slice(&text)
            .map_err(|e| PullCause::InvalidImage(format!("configuration: {e}")))?;
        check_platform(configuration.os(), configuration.architecture())?;
        let diff_ids = configuration.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers().len() {
            return Err(PullCause::InvalidImage(format!(
                "{} layers in the manifest, {} in the configuration",
                manifest.layers().len(),
                diff_ids.len()
            )));
        }
        let budget = Arc::new(UncompressedBudget::new(limits.max_uncompressed_bytes));
        let layers = manifest.layers().iter().zip(diff_ids).enumerate();
        let fetches = layers.map(|(number, (layer, diff_id))| {
            self.fetch_layer(number, layer, diff_id, Arc::clone(&budget))
        });
        // Collected first: a stream over the closure itself would not be `Send`.
        let fetches: Vec<_> = fetches.collect();
        let spools = futures::stream::iter(fetches)
            .buffered(LAYERS_AT_ONCE)
            .try_collect()
            .await?;
        Ok(Fetched {
            configuration,
            spools,
        })
    }

    async fn fetch_layer(
        &self,
        number: usize,
        layer: &Descriptor,
        diff_id: &str,
        budget: Arc<UncompressedBudget>,
    ) -> Result<File, PullCause> {
        let closed = |e| PullCause::Internal(format!("waiting for a download slot: {e}"));
        let _slot = self.store.download_slots.acquire().await.map_err(closed)?;
        let request = BlobRequest {
            what: format!("layer {number}"),
            digest: layer.digest().to_string(),
            size: layer.size(),
        };
        let digests = LayerDigests {
            layer: number,
            compressed: request.digest.clone(),
            diff_id: diff_id.to_owned(),
        };
        // A spool has no name, so a crash leaves nothing of it.
        let spool = tempfile::tempfile_in(self.store.spool_directory())
            .map_err(|e| PullCause::store(format!("layer {number}"), e))?;
        fetch_layer(&self.session, &request, digests, budget, spool).await
    }
}

/// Digests name files and URLs, so only what is exactly one is let through.
fn check_digest(what: &str, digest: &str) -> Result<(), PullCause> {
    let hex = digest.strip_prefix("sha256:");
    let lower_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(lower_hex)) {
        return Ok(());
    }
    Err(PullCause::Unsupported(format!(
        "{what}: digest {digest} is not a sha256 digest"
    )))
}

/// Converts what was fetched, if anything had to be, and commits.
fn finish(
    store: &Inner,
    id: &str,
    reference: &ImageReference,
    repo_digest: &str,
    fetched: Option<Fetched>,
    _guard: OwnedMutexGuard<()>,
) -> Result<Image, PullCause> {
    let Some(fetched) = fetched else {
        return store.commit(id, reference, repo_digest, None);
    };
    let limits = TreeLimits {
        max_entries: store.limits.max_entries,
        max_metadata_bytes: MAX_METADATA_BYTES,
    };
    let mut tree = Tree::new(limits);
    for (layer, spool) in fetched.spools.iter().enumerate() {
        apply_layer(&mut tree, spool, layer).map_err(|fault| fault.in_layer(layer))?;
    }
    let limit = store.limits.max_passwd_bytes;
    let passwd = read_small_file(&mut tree, &fetched.spools, "passwd", limit);
    let group = read_small_file(&mut tree, &fetched.spools, "group", limit);
    let output = NamedTempFile::new_in(store.spool_directory())
        .map_err(|e| PullCause::store("the image file", e))?;
    let uuid = filesystem_uuid(id);
    let size_bytes = write_image(&tree, &fetched.spools, uuid, VOLUME_NAME, output.as_file())
        .map_err(|e| erofs_cause(e, store))?;
    let record = Record {
        repo_tags: BTreeSet::new(),
        repo_digests: BTreeSet::new(),
        references: BTreeSet::new(),
        size_bytes,
        config: image_config(&fetched.configuration),
        passwd,
        group,
    };
    store.commit(
        id,
        reference,
        repo_digest,
        Some((output.into_temp_path(), record)),
    )
}

fn erofs_cause(error: ErofsError, store: &Inner) -> PullCause {
    match error {
        ErofsError::Write(source) => PullCause::store("the image file", source),
        ErofsError::Read { layer, source } => {
            PullCause::store(format!("reading layer {layer} back"), source)
        }
        ErofsError::TooLarge => PullCause::TooLarge {
            what: "image".to_owned(),
            actual: u64::MAX,
            limit: store.limits.max_uncompressed_bytes,
        },
    }
}

/// The digits of the image's id, marked as a UUID of RFC 9562 version 8.
fn filesystem_uuid(id: &str) -> [u8; 16] {
    let digits = id.strip_prefix("sha256:").unwrap_or(id);
    let mut uuid = [0; 16];
    for (number, byte) in uuid.iter_mut().enumerate() {
        let pair = digits.get(number * 2..number * 2 + 2).unwrap_or("00");
        *byte = u8::from_str_radix(pair, 16).unwrap_or(0);
    }
    uuid[6] = (uuid[6] & 0x0f) | 0x80;
    uuid[8] = (uuid[8] & 0x3f) | 0x80;
    uuid
}

/// A file of `/etc` as text. What is missing, too large or not UTF-8 names nobody.
fn read_small_file(tree: &mut Tree, spools: &[File], name: &str, limit: u64) -> Option<String> {
    let range = tree.file(&[b"etc", name.as_bytes()]).ok().flatten()?;
    if range.bytes > limit {
        warn!(
            name,
            bytes = range.bytes,
            limit,
            "file in /etc is too large to look names up in"
        );
        return None;
    }
    let mut content = vec![0; usize::try_from(range.bytes).ok()?];
    spools
        .get(range.layer)?
        .read_exact_at(&mut content, range.offset)
        .ok()?;
    String::from_utf8(content).ok()
}

fn image_config(configuration: &ImageConfiguration) -> ImageConfig {
    let Some(config) = configuration.config() else {
        return ImageConfig::default();
    };
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let labels = config.labels().clone().unwrap_or_default();
    ImageConfig {
        entrypoint: list(config.entrypoint()),
        cmd: list(config.cmd()),
        env: list(config.env()),
        user: config.user().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
        stop_signal: config
            .stop_signal()
            .clone()
            .filter(|signal| !signal.is_empty()),
        exposed_ports: sorted(config.exposed_ports()),
        volumes: sorted(config.volumes()),
        labels: labels.into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(words: &str) -> PullCause {
        PullCause::Unavailable(words.to_owned())
    }

    fn not_found() -> PullCause {
        PullCause::NotFound {
            what: "manifest".to_owned(),
            detail: "404".to_owned(),
        }
    }

    #[test]
    fn a_definite_answer_outweighs_an_unreachable_endpoint() {
        let failures = vec![
            ("http://mirror".to_owned(), not_found()),
            ("https://origin".to_owned(), unavailable("no route")),
        ];
        let error = verdict("docker.io/library/x:latest", "docker.io", failures);
        assert_eq!(error.kind(), PullErrorKind::NotFound);
        assert_eq!(error.registry, "http://mirror");
        assert!(
            error.to_string().contains("also tried https://origin"),
            "{error}"
        );
    }

    #[test]
    fn the_last_endpoint_decides_otherwise() {
        let failures = vec![
            ("http://mirror".to_owned(), unavailable("refused")),
            ("https://origin".to_owned(), not_found()),
        ];
        assert_eq!(
            verdict("x", "docker.io", failures).kind(),
            PullErrorKind::NotFound
        );
        let failures = vec![("http://mirror".to_owned(), unavailable("refused"))];
        assert_eq!(
            verdict("x", "docker.io", failures).kind(),
            PullErrorKind::Unavailable
        );
    }

    #[test]
    fn digests_that_are_paths_are_refused() {
        assert!(check_digest("config", &format!("sha256:{}", "ab".repeat(32))).is_ok());
        for wrong in ["sha256:../../etc/passwd", "sha256:AB", "md5:00", ""] {
            assert!(check_digest("config", wrong).is_err());
        }
        assert!(check_digest("config", &format!("sha256:{}", "AB".repeat(32))).is_err());
    }

    #[test]
    fn reads_a_docker_configuration_with_nulls() {
        let text = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},
            "config":{"Env":["A=b"],"Cmd":null,"Entrypoint":["/e"],"ExposedPorts":{"80/tcp":{}},
            "Volumes":null,"Labels":null,"User":"nobody","StopSignal":"SIGQUIT","OnBuild":null}}"#;
        let configuration: ImageConfiguration = serde_json::from_str(text).unwrap();
        let config = image_config(&configuration);
        assert_eq!(config.entrypoint, ["/e"]);
        assert_eq!(config.exposed_ports, ["80/tcp"]);
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(config.cmd.is_empty() && config.volumes.is_empty());
    }
}
