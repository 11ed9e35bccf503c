//! Rate limits of disks and networks.

use serde::{Deserialize, Serialize};

/// A token bucket.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// Bytes or operations a second; 0 counts as 1.
    pub per_second: u64,
    /// How many may come at once after a pause; as many as in a second when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// Limits of one direction of a device. What is absent is not limited.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<Rate>,
    /// Requests of a disk, frames of a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operations: Option<Rate>,
}
