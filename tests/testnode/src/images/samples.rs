//! busybox, and small images that each show one thing of the image specification.

use super::layer::{Compression, Layer, Owner, PackedLayer};
use super::{Config, Image, ImagesError, Storage, Style};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes them all.
pub fn write(storage: &Storage, busybox: &PackedLayer) -> Result<(), ImagesError> {
    let shell = Config {
        cmd: vec!["sh"],
        env: vec![PATH],
        ..Config::default()
    };
    let plain = Image::new(vec![busybox.clone()], &shell, Style::Oci)?;
    storage.put("library/busybox", "latest", &plain)?;
    storage.put("test/index", "latest", &plain)?;
    storage.put_index("test/index", "latest", &plain.index()?)?;
    let docker = Image::new(vec![busybox.clone()], &shell, Style::Docker)?;
    storage.put("test/docker", "latest", &docker)?;

    let layers = stacked_layers(busybox)?;
    storage.put(
        "test/layers",
        "latest",
        &Image::new(layers, &shell, Style::Oci)?,
    )?;

    let mut extra = Layer::new();
    extra
        .directory("zstd", 0o755)?
        .file("zstd/here", 0o644, b"compressed with zstd\n")?;
    let zstd = vec![busybox.clone(), extra.pack(Compression::Zstd)?];
    storage.put(
        "test/zstd",
        "latest",
        &Image::new(zstd, &shell, Style::Oci)?,
    )?;

    let mut extra = Layer::new();
    extra
        .directory("plain", 0o755)?
        .file("plain/here", 0o644, b"not compressed\n")?;
    let plain = vec![busybox.clone(), extra.pack(Compression::None)?];
    storage.put(
        "test/plain",
        "latest",
        &Image::new(plain, &shell, Style::Oci)?,
    )?;

    storage.put("test/user", "latest", &user(busybox)?)
}

/// Three layers over busybox; the files below `/stack` tell which rule they test.
fn stacked_layers(busybox: &PackedLayer) -> Result<Vec<PackedLayer>, ImagesError> {
    let mut first = Layer::new();
    first.directory("stack", 0o755)?;
    first.file("stack/kept", 0o644, b"first\n")?;
    first.file("stack/replaced", 0o644, b"first\n")?;
    first.file("stack/removed", 0o644, b"first\n")?;
    first.directory("stack/removed-directory", 0o755)?;
    first.file("stack/removed-directory/file", 0o644, b"first\n")?;
    first.directory("stack/opaque", 0o755)?;
    first.file("stack/opaque/hidden", 0o644, b"first\n")?;
    first.file("stack/file-to-directory", 0o644, b"first\n")?;
    first.directory("stack/directory-to-file", 0o755)?;
    first.file("stack/directory-to-file/inner", 0o644, b"first\n")?;
    first.file("stack/original", 0o644, b"linked\n")?;
    first.hard_link("stack/hard-link", "stack/original")?;
    first.owned_file(
        "stack/owned",
        0o4755,
        Owner { uid: 1000, gid: 50 },
        b"first\n",
    )?;

    let mut second = Layer::new();
    second.directory("stack", 0o750)?;
    second.file("stack/replaced", 0o600, b"second\n")?;
    second.whiteout("stack", "removed")?;
    second.whiteout("stack", "removed-directory")?;
    second.directory("stack/opaque", 0o755)?;
    second.opaque("stack/opaque")?;
    second.file("stack/opaque/seen", 0o644, b"second\n")?;
    second.directory("stack/file-to-directory", 0o755)?;
    second.file("stack/file-to-directory/inner", 0o644, b"second\n")?;
    second.file("stack/directory-to-file", 0o644, b"second\n")?;
    let long = format!("stack/{}", ["long-name"; 20].join("/"));
    second.file(&long, 0o644, b"second\n")?;

    let mut third = Layer::new();
    // What one layer removes a later one may bring back.
    third.file("stack/removed", 0o644, b"third\n")?;
    third.whiteout("stack", "never-was")?;
    Ok(vec![
        busybox.clone(),
        first.pack(Compression::Gzip)?,
        second.pack(Compression::Gzip)?,
        third.pack(Compression::Gzip)?,
    ])
}

/// Runs as a named user and group in a directory of its own and prints what it got.
fn user(busybox: &PackedLayer) -> Result<Image, ImagesError> {
    const SCRIPT: &[u8] = b"#!/bin/sh\n\
        echo \"user $(id -u):$(id -g) groups $(id -G)\"\n\
        echo \"directory $(pwd)\"\n\
        echo \"greeting $GREETING\"\n\
        echo \"arguments $*\"\n";
    let owner = Owner { uid: 1000, gid: 50 };
    let mut layer = Layer::new();
    layer.file("bin/show", 0o755, SCRIPT)?;
    layer.owned_directory("work", 0o755, owner)?;
    let config = Config {
        entrypoint: vec!["/bin/show", "entry"],
        cmd: vec!["from", "cmd"],
        env: vec![PATH, "GREETING=good morning"],
        user: "app:staff",
        working_dir: "/work",
        ..Config::default()
    };
    Image::new(
        vec![busybox.clone(), layer.pack(Compression::Gzip)?],
        &config,
        Style::Oci,
    )
}
