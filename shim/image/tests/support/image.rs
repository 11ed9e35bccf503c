//! Images to push: layers made with the tar crate, in the kinds that registries hold.

use std::io::Write;

use serde_json::{Value, json};
use tar::{EntryType, Header};

use super::registry::{Registry, digest};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

#[derive(Clone, Copy, Debug)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// An uncompressed layer.
pub struct Layer(tar::Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    pub fn entry(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        // The checked setter refuses `..`, which some tests need.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_link_name_literal(link).unwrap();
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn archive(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn compress(archive: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => archive.to_vec(),
        Compression::Zstd => zstd::encode_all(archive, 3).unwrap(),
        Compression::Gzip => {
            let level = flate2::Compression::fast();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(archive).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// An image ready to be pushed.
pub struct Image {
    pub config: String,
    pub blobs: Vec<Vec<u8>>,
    pub manifest: String,
}

impl Image {
    pub fn new(layers: Vec<(Layer, Compression)>) -> Self {
        Self::with_config(layers, json!({"Env": ["PATH=/bin"]}), "amd64")
    }

    pub fn with_config(
        layers: Vec<(Layer, Compression)>,
        config: Value,
        architecture: &str,
    ) -> Self {
        let layers: Vec<_> = layers
            .into_iter()
            .map(|(layer, compression)| (layer.archive(), compression))
            .collect();
        let diff_ids: Vec<_> = layers.iter().map(|(archive, _)| digest(archive)).collect();
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let mut descriptors = Vec::new();
        let mut blobs = Vec::new();
        for (archive, compression) in layers {
            let blob = compress(&archive, compression);
            let suffix = match compression {
                Compression::None => "",
                Compression::Gzip => "+gzip",
                Compression::Zstd => "+zstd",
            };
            descriptors.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": digest(&blob),
                "size": blob.len(),
            }));
            blobs.push(blob);
        }
        Self::assemble(config.to_string(), blobs, descriptors)
    }

    pub fn assemble(config: String, blobs: Vec<Vec<u8>>, descriptors: Vec<Value>) -> Self {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": digest(config.as_bytes()),
                "size": config.len(),
            },
            "layers": descriptors,
        });
        Self {
            config,
            blobs,
            manifest: manifest.to_string(),
        }
    }

    /// The id that the store gives it.
    pub fn id(&self) -> String {
        digest(self.config.as_bytes())
    }

    /// Uploads everything and returns the manifest's digest.
    pub async fn push(&self, registry: &Registry, repository: &str, version: &str) -> String {
        for blob in &self.blobs {
            registry.push_blob(repository, blob).await;
        }
        registry.push_blob(repository, self.config.as_bytes()).await;
        registry
            .push_manifest(repository, version, OCI_MANIFEST, &self.manifest)
            .await
    }
}

/// A small image with one file.
pub fn small() -> Image {
    Image::new(vec![(
        Layer::new().file("etc/motd", b"hello"),
        Compression::Gzip,
    )])
}
