//! What plugins print (CNI spec 1.0.0, section 5).

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A successful result: of ADD, and what later plugins and commands get as `prevResult`.
/// Only what the shim reads is typed; the whole is passed on as it came.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AddResult {
    /// Interfaces that plugins made, on the host and in the netns.
    #[serde(default)]
    pub interfaces: Vec<ResultInterface>,
    /// Addresses given.
    #[serde(default)]
    pub ips: Vec<ResultIp>,
}

/// See [`AddResult`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResultInterface {
    /// Its name.
    pub name: String,
    /// Path of its netns; empty on the host.
    #[serde(default)]
    pub sandbox: String,
}

/// See [`AddResult`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResultIp {
    /// Address in CIDR notation.
    pub address: String,
    /// Default gateway.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
}

impl AddResult {
    /// The addresses without their prefix lengths, in the plugin's order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips
            .iter()
            .filter_map(|ip| ip.address.split('/').next()?.parse().ok())
            .collect()
    }
}

/// A plugin's error.
#[derive(Debug, Clone, Deserialize)]
pub struct PluginFailure {
    /// See the specification for the numbers below 100.
    #[serde(default)]
    pub code: u32,
    /// Short.
    #[serde(default)]
    pub msg: String,
    /// Long, may be missing.
    #[serde(default)]
    pub details: String,
}

impl std::fmt::Display for PluginFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (code {})", self.msg, self.code)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}
