//! Decompression of a layer into its spool file, through both of its digests.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

use crate::error::PullCause;
use crate::registry::format_digest;

/// Bytes handled at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Largest zstd window, as a power of two: what the zstd program decodes without being asked.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What a layer has to hash to.
#[derive(Clone, Debug)]
pub(crate) struct LayerDigests {
    /// Index of the layer in the image, from 0.
    pub layer: usize,
    /// Of the blob as the registry has it.
    pub compressed: String,
    /// Of the tar archive within (the configuration's `rootfs.diff_ids`).
    pub diff_id: String,
}

/// Uncompressed bytes that an image's layers together may still take.
pub(crate) struct UncompressedBudget {
    taken: AtomicU64,
    limit: u64,
}

impl UncompressedBudget {
    pub fn new(limit: u64) -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit,
        }
    }

    fn take(&self, bytes: u64) -> Result<(), PullCause> {
        let actual = self
            .taken
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        if actual <= self.limit {
            return Ok(());
        }
        Err(PullCause::TooLarge {
            what: "uncompressed layers".to_owned(),
            actual,
            limit: self.limit,
        })
    }
}

/// Whether a layer's media type is one that is handled. How it is compressed is read from its
/// first bytes, since registries hold many layers whose type says otherwise.
pub(crate) fn is_layer_type(media_type: &str) -> bool {
    [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ]
    .iter()
    .any(|known| {
        let suffix = media_type.strip_prefix(known);
        suffix.is_some_and(|suffix| matches!(suffix, "" | "+gzip" | ".gzip" | "+zstd" | ".zstd"))
    })
}

/// Reads a layer from `compressed` and writes its tar archive to `spool`. Succeeds only if both
/// digests are right.
pub(crate) fn spool_layer(
    compressed: impl Read,
    digests: &LayerDigests,
    budget: &UncompressedBudget,
    spool: &mut File,
) -> Result<(), PullCause> {
    let hashing = HashingReader {
        inner: compressed,
        hash: Sha256::new(),
    };
    let mut reader = BufReader::with_capacity(CHUNK_BYTES, hashing);
    let decompressed = decompress(&mut reader, digests.layer, budget, spool);
    if let Err(cause) = &decompressed
        && !matches!(cause, PullCause::InvalidLayer { .. })
    {
        return decompressed.map(drop);
    }
    // A damaged blob shows as a decompression error first; its digest tells what it really is.
    io::copy(&mut reader, &mut io::sink()).map_err(|e| PullCause::InvalidLayer {
        layer: digests.layer,
        reason: format!("reading the blob: {e}"),
    })?;
    let actual = format_digest(&reader.into_inner().hash.finalize());
    check(
        format!("layer {}", digests.layer),
        &digests.compressed,
        actual,
    )?;
    let what = format!("layer {} uncompressed (diff_id)", digests.layer);
    check(what, &digests.diff_id, decompressed?)
}

fn check(what: String, expected: &str, actual: String) -> Result<(), PullCause> {
    if expected == actual {
        return Ok(());
    }
    Err(PullCause::DigestMismatch {
        what,
        expected: expected.to_owned(),
        actual,
    })
}

/// Returns the digest of the uncompressed bytes.
fn decompress(
    reader: &mut impl BufRead,
    layer: usize,
    budget: &UncompressedBudget,
    spool: &mut File,
) -> Result<String, PullCause> {
    let invalid = |e: io::Error| PullCause::InvalidLayer {
        layer,
        reason: e.to_string(),
    };
    let head = reader.fill_buf().map_err(invalid)?;
    if head.starts_with(GZIP_MAGIC) {
        return copy(&mut MultiGzDecoder::new(reader), layer, budget, spool);
    }
    if head.starts_with(ZSTD_MAGIC) {
        let mut decoder = zstd::Decoder::with_buffer(reader).map_err(invalid)?;
        decoder
            .window_log_max(ZSTD_WINDOW_LOG_MAX)
            .map_err(invalid)?;
        return copy(&mut decoder, layer, budget, spool);
    }
    copy(reader, layer, budget, spool)
}

fn copy(
    source: &mut impl Read,
    layer: usize,
    budget: &UncompressedBudget,
    spool: &mut File,
) -> Result<String, PullCause> {
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = match source.read(&mut chunk) {
            Ok(0) => return Ok(format_digest(&hash.finalize())),
            Ok(length) => length,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let reason = format!("decompressing: {e}");
                return Err(PullCause::InvalidLayer { layer, reason });
            }
        };
        let bytes = chunk.get(..length).unwrap_or_default();
        budget.take(length as u64)?;
        hash.update(bytes);
        spool
            .write_all(bytes)
            .map_err(|e| PullCause::store(format!("layer {layer}"), e))?;
    }
}

struct HashingReader<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hash.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek;

    use super::*;
    use crate::registry::sha256_digest;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn spool(blob: &[u8], compressed: &str, diff_id: &str) -> Result<Vec<u8>, PullCause> {
        let digests = LayerDigests {
            layer: 3,
            compressed: compressed.to_owned(),
            diff_id: diff_id.to_owned(),
        };
        let mut file = tempfile::tempfile().unwrap();
        let budget = UncompressedBudget::new(1 << 20);
        spool_layer(blob, &digests, &budget, &mut file)?;
        file.rewind().unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        Ok(content)
    }

    #[test]
    fn reads_gzip_zstd_and_plain_layers() {
        let content = b"content of a layer".repeat(1000);
        let diff_id = sha256_digest(&content);
        let two_members = [gzip(&content[..500]), gzip(&content[500..])].concat();
        let zstd = zstd::encode_all(&content[..], 3).unwrap();
        for blob in [gzip(&content), two_members, zstd, content.clone()] {
            assert_eq!(
                spool(&blob, &sha256_digest(&blob), &diff_id).unwrap(),
                content
            );
        }
    }

    #[test]
    fn a_damaged_blob_is_a_digest_mismatch() {
        let content = b"content of a layer".repeat(1000);
        let mut blob = gzip(&content);
        let promised = sha256_digest(&blob);
        let middle = blob.len() / 2;
        blob[middle] ^= 0xff;
        let error = spool(&blob, &promised, &sha256_digest(&content)).unwrap_err();
        assert!(
            matches!(&error, PullCause::DigestMismatch { what, .. } if what == "layer 3"),
            "{error}"
        );
        let cut = &gzip(&content)[..middle];
        let error = spool(cut, &promised, &sha256_digest(&content)).unwrap_err();
        assert!(matches!(error, PullCause::DigestMismatch { .. }), "{error}");
    }

    #[test]
    fn a_wrong_diff_id_is_a_digest_mismatch() {
        let blob = gzip(b"content");
        let error = spool(&blob, &sha256_digest(&blob), &sha256_digest(b"other")).unwrap_err();
        assert!(
            matches!(&error, PullCause::DigestMismatch { what, .. } if what.contains("diff_id")),
            "{error}"
        );
    }

    #[test]
    fn a_decompression_bomb_ends_at_the_budget() {
        let content = vec![0; 4 << 20];
        let blob = gzip(&content);
        let error = spool(&blob, &sha256_digest(&blob), &sha256_digest(&content)).unwrap_err();
        assert!(
            matches!(
                error,
                PullCause::TooLarge {
                    limit: 1_048_576,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn an_honest_digest_of_garbage_is_an_invalid_layer() {
        let blob = [GZIP_MAGIC, b"garbage"].concat();
        let error = spool(&blob, &sha256_digest(&blob), &sha256_digest(b"")).unwrap_err();
        assert!(
            matches!(error, PullCause::InvalidLayer { layer: 3, .. }),
            "{error}"
        );
    }

    #[test]
    fn knows_the_layer_types() {
        assert!(is_layer_type("application/vnd.oci.image.layer.v1.tar"));
        assert!(is_layer_type("application/vnd.oci.image.layer.v1.tar+zstd"));
        assert!(is_layer_type(
            "application/vnd.docker.image.rootfs.diff.tar.gzip"
        ));
        assert!(!is_layer_type(
            "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
        ));
        assert!(!is_layer_type("application/vnd.in-toto+json"));
    }
}
