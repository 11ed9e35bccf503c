//! Images that must be refused, each for one reason; `climbing-symlink` alone may be taken
//! instead, if its absolute link is resolved inside of the image (links such as `/var/run`
//! are absolute in ordinary images).

use tar::EntryType;

use super::layer::{Compression, Layer, PackedLayer, digest};
use super::{Config, Image, ImagesError, Storage, Style};

/// Writes them all.
pub fn write(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let put = |name: &str, layer: Layer| {
        let layers = vec![busybox.clone(), layer.pack(Compression::Gzip)?];
        storage.put(
            &format!("test/{name}"),
            "latest",
            &Image::new(layers, &shell(), Style::Oci)?,
        )
    };
    put(
        "climbing-path",
        entry(
            EntryType::Regular,
            "../../tmp/hull-climbed",
            "",
            b"climbed\n",
        )?,
    )?;
    put(
        "climbing-directory",
        entry(EntryType::Directory, "../../tmp/hull-climbed/", "", b"")?,
    )?;
    put(
        "climbing-hard-link",
        entry(EntryType::Link, "stolen", "../../etc/passwd", b"")?,
    )?;
    put(
        "absolute-hard-link",
        entry(EntryType::Link, "stolen", "/etc/hull-not-in-the-image", b"")?,
    )?;
    put(
        "climbing-whiteout",
        entry(EntryType::Regular, "etc/../../.wh.etc", "", b"")?,
    )?;

    // A link out of the root, then a file written through it.
    let mut through = entry(EntryType::Symlink, "out", "/tmp", b"")?;
    through.hostile(EntryType::Regular, "out/hull-climbed", "", b"climbed\n")?;
    put("climbing-symlink", through)?;
    let mut through = entry(EntryType::Symlink, "out", "../../../../tmp", b"")?;
    through.hostile(EntryType::Regular, "out/hull-climbed", "", b"climbed\n")?;
    put("climbing-relative-symlink", through)?;

    wrong_digest(storage, busybox)?;
    wrong_diff_id(storage, busybox)?;
    broken_layers(storage, busybox)
}

fn shell() -> Config {
    Config {
        cmd: vec!["sh"],
        ..Config::default()
    }
}

fn entry(kind: EntryType, name: &str, target: &str, data: &[u8]) -> Result<Layer, ImagesError> {
    let mut layer = Layer::new();
    layer.hostile(kind, name, target, data)?;
    Ok(layer)
}

fn marked(text: &str) -> Result<PackedLayer, ImagesError> {
    let mut layer = Layer::new();
    layer.file("mark", 0o644, text.as_bytes())?;
    layer.pack(Compression::Gzip)
}

/// The registry serves other bytes of the same length than the manifest names.
fn wrong_digest(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let layer = marked("wrong-digest")?;
    let mut altered = layer.bytes.clone();
    if let Some(last) = altered.last_mut() {
        *last ^= 1;
    }
    let name = layer.digest.clone();
    let image = Image::new(vec![busybox.clone(), layer], &shell(), Style::Oci)?;
    storage.put("test/wrong-digest", "latest", &image)?;
    storage.put_blob("test/wrong-digest", &name, &altered)
}

/// The configuration names another uncompressed digest than the layer has.
fn wrong_diff_id(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let layers = vec![busybox.clone(), marked("wrong-diff-id")?];
    let diff_ids = vec![busybox.diff_id.clone(), digest(b"something else")];
    let image = Image::with_diff_ids(layers, &shell(), Style::Oci, diff_ids)?;
    storage.put("test/wrong-diff-id", "latest", &image)
}

/// Layers that are correctly named and are not what they claim to be.
fn broken_layers(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let good = marked("truncated")?;
    let (half, _) = good.bytes.split_at(good.bytes.len() / 2);
    for (name, bytes) in [
        ("truncated-layer", half.to_vec()),
        ("garbage-layer", b"this is no archive".to_vec()),
    ] {
        let layer = PackedLayer {
            digest: digest(&bytes),
            bytes,
            compression: Compression::Gzip,
            diff_id: good.diff_id.clone(),
        };
        let image = Image::new(vec![busybox.clone(), layer], &shell(), Style::Oci)?;
        storage.put(&format!("test/{name}"), "latest", &image)?;
    }
    Ok(())
}
