//! Layers: from a registry's bytes to one merged tree (OCI image-spec layer.md).
//!
//! ```text
//! compressed bytes ─ digest ─► decompressor ─ diff_id ─► spool file           (spool)
//! spool file ─► entries: header, PAX and GNU extensions, offset of the data   (tar)
//! entries ─► merged tree: replacements, whiteouts, hard links                 (merge, tree, path)
//! ```
//!
//! File data is never copied into the tree: a file node says where in which spool its bytes are.

mod merge;
mod path;
mod spool;
mod tar;
mod tree;

pub(crate) use merge::apply_layer;
pub(crate) use spool::{LayerDigests, UncompressedBudget, is_layer_type, spool_layer};
pub(crate) use tree::{Content, DataRange, DeviceKind, NodeId, Tree, TreeLimits};

/// What is wrong with a layer, before the layer's number is known.
#[derive(Debug)]
pub(crate) enum LayerFault {
    /// A path that leaves the image.
    Unsafe { path: Vec<u8>, reason: &'static str },
    /// Not a well-formed archive.
    Invalid(String),
    /// A kind of entry that is not handled.
    Unsupported(String),
    /// A limit was passed.
    TooLarge {
        what: &'static str,
        actual: u64,
        limit: u64,
    },
    /// Reading the spool failed.
    Io(std::io::Error),
}

impl LayerFault {
    /// The cause of a failed pull that this fault of layer `layer` is.
    pub fn in_layer(self, layer: usize) -> crate::error::PullCause {
        use crate::error::PullCause;
        match self {
            Self::Unsafe { path, reason } => PullCause::UnsafePath {
                layer,
                path: path.escape_ascii().to_string(),
                reason,
            },
            Self::Invalid(reason) => PullCause::InvalidLayer { layer, reason },
            Self::Unsupported(what) => PullCause::Unsupported(format!("layer {layer}: {what}")),
            Self::TooLarge {
                what,
                actual,
                limit,
            } => PullCause::TooLarge {
                what: what.to_owned(),
                actual,
                limit,
            },
            Self::Io(source) => PullCause::store(format!("reading layer {layer} back"), source),
        }
    }
}

impl From<std::io::Error> for LayerFault {
    fn from(source: std::io::Error) -> Self {
        Self::Io(source)
    }
}
