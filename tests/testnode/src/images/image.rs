//! Configuration, manifest and index of an image (OCI image-spec 1.0; Docker image
//! manifest version 2, schema 2).

use serde_json::{Value, json};

use super::ImagesError;
use super::layer::{Compression, PackedLayer, digest};

/// What the image says about running it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<&'static str>,
    /// `CMD`.
    pub cmd: Vec<&'static str>,
    /// `ENV`, `K=V` each.
    pub env: Vec<&'static str>,
    /// `USER`.
    pub user: &'static str,
    /// `WORKDIR`.
    pub working_dir: &'static str,
    /// `EXPOSE`.
    pub ports: Vec<&'static str>,
    /// `STOPSIGNAL`.
    pub stop_signal: &'static str,
}

/// Whose media types the documents carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// `application/vnd.oci.…`
    Oci,
    /// `application/vnd.docker.…`
    Docker,
}

/// An image that is ready to be stored.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its layers, the lowest first.
    pub layers: Vec<PackedLayer>,
    /// The configuration document.
    pub config: Vec<u8>,
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Media type of the manifest.
    pub media_type: &'static str,
}

impl Style {
    fn manifest(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.manifest.v1+json",
            Self::Docker => "application/vnd.docker.distribution.manifest.v2+json",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Oci => "application/vnd.oci.image.config.v1+json",
            Self::Docker => "application/vnd.docker.container.image.v1+json",
        }
    }

    fn layer(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (Self::Oci, Compression::None) => "application/vnd.oci.image.layer.v1.tar",
            (Self::Oci, Compression::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Self::Oci, Compression::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            // Docker has no type for plain or zstd layers; clients look at the bytes.
            (Self::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        }
    }
}

impl Image {
    /// An image for linux/amd64.
    pub fn new(
        layers: Vec<PackedLayer>,
        config: &Config,
        style: Style,
    ) -> Result<Self, ImagesError> {
        let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        Self::with_diff_ids(layers, config, style, diff_ids)
    }

    /// As [`Image::new`], with the uncompressed digests given, which may be wrong.
    pub fn with_diff_ids(
        layers: Vec<PackedLayer>,
        config: &Config,
        style: Style,
        diff_ids: Vec<String>,
    ) -> Result<Self, ImagesError> {
        let config = serde_json::to_vec(&config_document(config, &diff_ids, "amd64"))?;
        let descriptors: Vec<_> = layers
            .iter()
            .map(|layer| {
                descriptor(
                    style.layer(layer.compression),
                    layer.bytes.len(),
                    &layer.digest,
                )
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": style.manifest(),
            "config": descriptor(style.config(), config.len(), &digest(&config)),
            "layers": descriptors,
        });
        let manifest = serde_json::to_vec(&manifest)?;
        Ok(Self {
            layers,
            config,
            manifest,
            media_type: style.manifest(),
        })
    }

    /// Digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// An index that offers this image for linux/amd64, after an entry for another
    /// architecture that is not there to be pulled.
    pub fn index(&self) -> Result<Vec<u8>, ImagesError> {
        let absent = digest(b"no such manifest");
        let entry = |architecture: &str, size: usize, digest: &str| {
            let mut entry = descriptor(self.media_type, size, digest);
            entry["platform"] = json!({"architecture": architecture, "os": "linux"});
            entry
        };
        let index = json!({
            "schemaVersion": 2,
            "mediaType": INDEX,
            "manifests": [
                entry("riscv64", 2, &absent),
                entry("amd64", self.manifest.len(), &self.digest()),
            ],
        });
        Ok(serde_json::to_vec(&index)?)
    }
}

/// Media type of [`Image::index`].
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn descriptor(media_type: &str, size: usize, digest: &str) -> Value {
    json!({"mediaType": media_type, "size": size, "digest": digest})
}

fn config_document(config: &Config, diff_ids: &[String], architecture: &str) -> Value {
    let mut run = serde_json::Map::new();
    let mut set = |key: &str, value: Value, given: bool| {
        if given {
            run.insert(key.to_owned(), value);
        }
    };
    set(
        "Entrypoint",
        json!(config.entrypoint),
        !config.entrypoint.is_empty(),
    );
    set("Cmd", json!(config.cmd), !config.cmd.is_empty());
    set("Env", json!(config.env), !config.env.is_empty());
    set("User", json!(config.user), !config.user.is_empty());
    set(
        "WorkingDir",
        json!(config.working_dir),
        !config.working_dir.is_empty(),
    );
    set(
        "StopSignal",
        json!(config.stop_signal),
        !config.stop_signal.is_empty(),
    );
    let ports: serde_json::Map<_, _> = config
        .ports
        .iter()
        .map(|port| ((*port).to_owned(), json!({})))
        .collect();
    set(
        "ExposedPorts",
        Value::Object(ports),
        !config.ports.is_empty(),
    );
    json!({
        "created": "1970-01-01T00:00:00Z",
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|_| json!({"created_by": "hull-testnode images"})).collect::<Vec<_>>(),
    })
}
