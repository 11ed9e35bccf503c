//! One layer: a tar stream with a fixed time and fixed owners, compressed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use flate2::GzBuilder;
use tar::{Builder, EntryType, Header};

use super::ImagesError;
use crate::cache;

/// Level of zstd compression.
const ZSTD_LEVEL: i32 = 6;

/// How a layer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Numeric owner of an entry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Owner {
    /// User.
    pub uid: u64,
    /// Group.
    pub gid: u64,
}

/// A layer that is being filled.
pub struct Layer {
    tar: Builder<Vec<u8>>,
}

/// A finished layer.
#[derive(Debug, Clone)]
pub struct PackedLayer {
    /// As it travels.
    pub bytes: Vec<u8>,
    /// How it is compressed.
    pub compression: Compression,
    /// Digest of `bytes`, `sha256:…`.
    pub digest: String,
    /// Digest of the tar (OCI image-spec, "Layer DiffID").
    pub diff_id: String,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    pub fn new() -> Self {
        Self {
            tar: Builder::new(Vec::new()),
        }
    }

    /// Adds a directory owned by root.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<&mut Self, ImagesError> {
        self.owned_directory(path, mode, Owner::default())
    }

    /// Adds a directory.
    pub fn owned_directory(
        &mut self,
        path: &str,
        mode: u32,
        owner: Owner,
    ) -> Result<&mut Self, ImagesError> {
        self.add(
            header(EntryType::Directory, mode, owner),
            &format!("{path}/"),
            &[],
        )
    }

    /// Adds a file owned by root.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        contents: &[u8],
    ) -> Result<&mut Self, ImagesError> {
        self.owned_file(path, mode, Owner::default(), contents)
    }

    /// Adds a file.
    pub fn owned_file(
        &mut self,
        path: &str,
        mode: u32,
        owner: Owner,
        contents: &[u8],
    ) -> Result<&mut Self, ImagesError> {
        self.add(header(EntryType::Regular, mode, owner), path, contents)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<&mut Self, ImagesError> {
        self.link(EntryType::Symlink, path, target)
    }

    /// Adds another name for a file of this layer.
    pub fn hard_link(&mut self, path: &str, target: &str) -> Result<&mut Self, ImagesError> {
        self.link(EntryType::Link, path, target)
    }

    /// Removes a file of the layers below (OCI image-spec, "Whiteouts").
    pub fn whiteout(&mut self, directory: &str, name: &str) -> Result<&mut Self, ImagesError> {
        self.file(&format!("{directory}/.wh.{name}"), 0o644, &[])
    }

    /// Hides everything that the layers below have in a directory ("Opaque Whiteout").
    pub fn opaque(&mut self, directory: &str) -> Result<&mut Self, ImagesError> {
        self.file(&format!("{directory}/.wh..wh..opq"), 0o644, &[])
    }

    /// Adds an entry whose name and target are taken as they are, however hostile.
    pub fn hostile(
        &mut self,
        kind: EntryType,
        name: &str,
        target: &str,
        contents: &[u8],
    ) -> Result<&mut Self, ImagesError> {
        let mut header = header(kind, 0o644, Owner::default());
        header.set_size(contents.len() as u64);
        let fields = header.as_old_mut();
        for (field, text) in [(&mut fields.name, name), (&mut fields.linkname, target)] {
            for (to, from) in field.iter_mut().zip(text.bytes()) {
                *to = from;
            }
        }
        header.set_cksum();
        self.tar
            .append(&header, contents)
            .map_err(ImagesError::Pack)?;
        Ok(self)
    }

    /// Adds a directory of the host, sorted, owned by root, without what `keep` refuses.
    pub fn tree(
        &mut self,
        root: &Path,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<&mut Self, ImagesError> {
        self.subtree(root, Path::new(""), keep)?;
        Ok(self)
    }

    fn subtree(
        &mut self,
        root: &Path,
        below: &Path,
        keep: &dyn Fn(&str) -> bool,
    ) -> Result<(), ImagesError> {
        let entries = fs::read_dir(root.join(below)).map_err(ImagesError::Pack)?;
        let mut names: Vec<PathBuf> = entries
            .map(|entry| entry.map(|entry| below.join(entry.file_name())))
            .collect::<io::Result<_>>()
            .map_err(ImagesError::Pack)?;
        names.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        for name in names {
            let text = name.to_string_lossy();
            if !keep(&text) {
                continue;
            }
            let source = root.join(&name);
            let metadata = fs::symlink_metadata(&source).map_err(ImagesError::Pack)?;
            let mode = metadata.permissions().mode() & 0o7777;
            if metadata.is_dir() {
                self.directory(&text, mode)?;
                self.subtree(root, &name, keep)?;
            } else if metadata.is_symlink() {
                let target = fs::read_link(&source).map_err(ImagesError::Pack)?;
                self.symlink(&text, &target.to_string_lossy())?;
            } else {
                let contents = fs::read(&source).map_err(ImagesError::Pack)?;
                self.file(&text, mode, &contents)?;
            }
        }
        Ok(())
    }

    /// Ends the layer.
    pub fn pack(self, compression: Compression) -> Result<PackedLayer, ImagesError> {
        let tar = self.tar.into_inner().map_err(ImagesError::Pack)?;
        let diff_id = digest(&tar);
        let bytes = match compression {
            Compression::None => tar,
            Compression::Gzip => gzip(&tar).map_err(ImagesError::Pack)?,
            Compression::Zstd => {
                zstd::encode_all(tar.as_slice(), ZSTD_LEVEL).map_err(ImagesError::Pack)?
            }
        };
        Ok(PackedLayer {
            digest: digest(&bytes),
            bytes,
            compression,
            diff_id,
        })
    }

    fn link(
        &mut self,
        kind: EntryType,
        path: &str,
        target: &str,
    ) -> Result<&mut Self, ImagesError> {
        let mut header = header(kind, 0o777, Owner::default());
        self.tar
            .append_link(&mut header, path, target)
            .map_err(ImagesError::Pack)?;
        Ok(self)
    }

    fn add(
        &mut self,
        mut header: Header,
        path: &str,
        data: &[u8],
    ) -> Result<&mut Self, ImagesError> {
        header.set_size(data.len() as u64);
        self.tar
            .append_data(&mut header, path, data)
            .map_err(ImagesError::Pack)?;
        Ok(self)
    }
}

/// A digest as the OCI documents write it.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", cache::sha256_hex(bytes))
}

fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn header(kind: EntryType, mode: u32, owner: Owner) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    header.set_mtime(0);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn sample(compression: Compression) -> PackedLayer {
        let mut layer = Layer::new();
        layer
            .directory("etc", 0o755)
            .unwrap()
            .file("etc/name", 0o644, b"x")
            .unwrap();
        layer
            .whiteout("etc", "gone")
            .unwrap()
            .opaque("var")
            .unwrap();
        layer.pack(compression).unwrap()
    }

    #[test]
    fn every_compression_holds_the_same_tar() {
        let plain = sample(Compression::None);
        assert_eq!(plain.digest, plain.diff_id);
        let mut gzip = Vec::new();
        let packed = sample(Compression::Gzip);
        flate2::read::GzDecoder::new(packed.bytes.as_slice())
            .read_to_end(&mut gzip)
            .unwrap();
        assert_eq!((&gzip, &packed.diff_id), (&plain.bytes, &plain.diff_id));
        let packed = sample(Compression::Zstd);
        assert_eq!(
            zstd::decode_all(packed.bytes.as_slice()).unwrap(),
            plain.bytes
        );
        assert_eq!(
            sample(Compression::Gzip).digest,
            sample(Compression::Gzip).digest
        );
    }

    #[test]
    fn hostile_names_are_written_as_given() {
        let mut layer = Layer::new();
        layer
            .hostile(EntryType::Link, "../../up", "/etc/passwd", b"")
            .unwrap();
        let packed = layer.pack(Compression::None).unwrap();
        let mut archive = tar::Archive::new(packed.bytes.as_slice());
        let entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(&*entry.path_bytes(), b"../../up");
        assert_eq!(&*entry.link_name_bytes().unwrap(), b"/etc/passwd");
    }

    #[test]
    fn a_tree_is_sorted_and_owned_by_root() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "a", "skip"] {
            fs::write(root.path().join(name), name).unwrap();
        }
        let mut layer = Layer::new();
        layer.tree(root.path(), &|path| path != "skip").unwrap();
        let packed = layer.pack(Compression::None).unwrap();
        let mut archive = tar::Archive::new(packed.bytes.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().uid().unwrap(), 0);
                entry.path().unwrap().into_owned()
            })
            .collect();
        assert_eq!(names, [Path::new("a"), Path::new("b")]);
    }
}
