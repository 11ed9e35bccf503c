//! Chains of plugins (CNI spec 1.0.0, section 3).

use super::cache::{Cache, CacheEntry};
use super::config::{self, ConfigError};
use super::exec::{Command, ExecError, Executor, Target};
use super::types::AddResult;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Why a network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// No usable configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A plugin.
    #[error("network {network:?}: {source}")]
    Plugin {
        /// `name`.
        network: String,
        /// What happened.
        source: Box<ExecError>,
    },
    /// A plugin printed something that is not a result.
    #[error("network {network:?}: the result of ADD is not usable: {problem}")]
    Result {
        /// `name`.
        network: String,
        /// Why.
        problem: String,
    },
    /// The cache.
    #[error("keeping the CNI result of {container_id}: {source}")]
    Cache {
        /// Whose.
        container_id: String,
        /// Why.
        source: std::io::Error,
    },
}

/// One host port (capability `portMappings`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// On the host.
    pub host_port: u16,
    /// In the pod.
    pub container_port: u16,
    /// "tcp", "udp" or "sctp".
    pub protocol: String,
    /// Host address; empty: all.
    #[serde(rename = "hostIP", skip_serializing_if = "String::is_empty")]
    pub host_ip: String,
}

/// A container to be attached.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// CNI_CONTAINERID: the sandbox id.
    pub container_id: String,
    /// Its netns.
    pub netns: PathBuf,
    /// CNI_ARGS.
    pub args: Vec<(String, String)>,
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
}

/// Executes the chains of the default network.
#[derive(Debug, Clone)]
pub struct CniRuntime {
    /// Where configurations are.
    pub config_directories: Vec<PathBuf>,
    /// How plugins are run.
    pub executor: Executor,
    /// What was added.
    pub cache: Cache,
}

impl CniRuntime {
    /// Attaches a container. On failure the plugins that ran are told to undo it.
    pub async fn add(&self, attachment: &Attachment) -> Result<AddResult, CniError> {
        let list = config::load_default(&self.config_directories)?;
        let args: Vec<String> = attachment
            .args
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let mut capabilities = Map::new();
        if !attachment.port_mappings.is_empty() {
            capabilities.insert("portMappings".to_string(), json!(attachment.port_mappings));
        }
        let mut entry = CacheEntry {
            container_id: attachment.container_id.clone(),
            netns: attachment.netns.clone(),
            args: args.join(";"),
            network: list.name,
            version: list.version,
            disable_check: list.disable_check,
            plugins: list.plugins,
            capabilities,
            result: None,
        };
        self.store(&entry)?;
        match self.run_chain(&mut entry).await {
            Ok(result) => {
                self.store(&entry)?;
                Ok(result)
            }
            Err(error) => {
                if let Err(undo) = self.delete(&attachment.container_id).await {
                    tracing::warn!(sandbox_id = attachment.container_id, %undo, "CNI DEL after a failed ADD");
                }
                Err(error)
            }
        }
    }

    async fn run_chain(&self, entry: &mut CacheEntry) -> Result<AddResult, CniError> {
        for plugin in entry.plugins.clone() {
            let stdout = self.execute(entry, &plugin, Command::Add).await?;
            let result = serde_json::from_slice(&stdout).map_err(|error| CniError::Result {
                network: entry.network.clone(),
                problem: error.to_string(),
            })?;
            entry.result = Some(result);
        }
        let result = entry.result.clone().unwrap_or_default();
        serde_json::from_value(result).map_err(|error| CniError::Result {
            network: entry.network.clone(),
            problem: error.to_string(),
        })
    }

    /// Asks every plugin whether the attachment is still as it should be.
    pub async fn check(&self, container_id: &str) -> Result<(), CniError> {
        let Some(entry) = self.load(container_id)? else {
            return Ok(());
        };
        if entry.disable_check || entry.version == "0.3.1" || entry.result.is_none() {
            return Ok(());
        }
        for plugin in &entry.plugins {
            self.execute(&entry, plugin, Command::Check).await?;
        }
        Ok(())
    }

    /// Detaches a container: every plugin in reverse order. All of them run even if
    /// one fails; the entry stays then, so that the caller can try again. A
    /// container that was never attached is no error.
    pub async fn delete(&self, container_id: &str) -> Result<(), CniError> {
        let Some(entry) = self.load(container_id)? else {
            return Ok(());
        };
        let mut first_error = None;
        for plugin in entry.plugins.iter().rev() {
            if let Err(error) = self.execute(&entry, plugin, Command::Del).await {
                first_error.get_or_insert(error);
            }
        }
        if let Some(error) = first_error {
            return Err(error);
        }
        self.cache
            .remove(container_id)
            .map_err(|source| CniError::Cache {
                container_id: container_id.to_string(),
                source,
            })
    }

    /// Whether pods can be attached now.
    pub fn ready(&self) -> Result<String, ConfigError> {
        config::load_default(&self.config_directories).map(|list| list.name)
    }

    /// The addresses that ADD gave to a container.
    pub fn addresses(&self, container_id: &str) -> Vec<IpAddr> {
        let entry = self.cache.load(container_id).ok().flatten();
        entry
            .and_then(|entry| entry.result)
            .and_then(|result| serde_json::from_value::<AddResult>(result).ok())
            .map(|result| result.addresses())
            .unwrap_or_default()
    }

    async fn execute(
        &self,
        entry: &CacheEntry,
        plugin: &Map<String, Value>,
        command: Command,
    ) -> Result<Vec<u8>, CniError> {
        let kind = plugin
            .get("type")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let target = Target {
            container_id: entry.container_id.clone(),
            // A netns that is gone (after a reboot) must not stop DEL: the
            // specification lets CNI_NETNS be empty there.
            netns: existing_or_empty(&entry.netns, command),
            args: entry.args.clone(),
        };
        let stdin = plugin_input(entry, plugin).to_string();
        self.executor
            .execute(kind, command, &target, stdin.as_bytes())
            .await
            .map_err(|source| CniError::Plugin {
                network: entry.network.clone(),
                source: Box::new(source),
            })
    }

    fn load(&self, container_id: &str) -> Result<Option<CacheEntry>, CniError> {
        self.cache
            .load(container_id)
            .map_err(|source| CniError::Cache {
                container_id: container_id.to_string(),
                source,
            })
    }

    fn store(&self, entry: &CacheEntry) -> Result<(), CniError> {
        self.cache.store(entry).map_err(|source| CniError::Cache {
            container_id: entry.container_id.clone(),
            source,
        })
    }
}

fn existing_or_empty(netns: &Path, command: Command) -> PathBuf {
    if command == Command::Del && !netns.exists() {
        PathBuf::new()
    } else {
        netns.to_path_buf()
    }
}

/// The plugin's own configuration with what the runtime adds to it.
fn plugin_input(entry: &CacheEntry, plugin: &Map<String, Value>) -> Value {
    let mut input = plugin.clone();
    input.insert("name".to_string(), json!(entry.network));
    input.insert("cniVersion".to_string(), json!(entry.version));
    if let Some(result) = &entry.result {
        input.insert("prevResult".to_string(), result.clone());
    }
    let wanted = |name: &str| {
        plugin.get("capabilities").and_then(|all| all.get(name)) == Some(&Value::Bool(true))
    };
    let granted: Map<String, Value> = entry
        .capabilities
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !granted.is_empty() {
        input.insert("runtimeConfig".to_string(), Value::Object(granted));
    }
    input.remove("capabilities");
    Value::Object(input)
}
