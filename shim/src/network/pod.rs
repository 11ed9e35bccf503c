//! The network of one sandbox, from nothing to a tap and back.

use super::link::{self, InterfaceState, LinkError};
use super::netns::{self, NetnsError};
use super::tap::{self, TapError};
use crate::cni::exec::INTERFACE_NAME;
use crate::cni::{Attachment, CniError, CniRuntime, PortMapping};
use async_trait::async_trait;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Name of the tap in the netns.
const TAP_NAME: &str = "tap0";

/// Why a sandbox has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// A CNI plugin or its configuration.
    #[error(transparent)]
    Cni(#[from] CniError),
    /// The tap.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The interface that CNI made.
    #[error("joining the CNI interface to the tap: {0}")]
    Link(#[from] LinkError),
    /// A helper task died.
    #[error("network task: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// For which sandbox a network is made.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// Sandbox id.
    pub id: String,
    /// The namespace's file.
    pub netns: PathBuf,
    /// Pod's namespace, name and uid, for CNI_ARGS.
    pub pod: [String; 3],
    /// Host ports.
    pub port_mappings: Vec<PortMapping>,
}

/// A network that is ready for a VM.
#[derive(Debug)]
pub struct PodNetworkSetup {
    /// The tap.
    pub tap: File,
    /// What the guest takes over.
    pub interface: InterfaceState,
    /// Addresses in the order of the CNI result.
    pub addresses: Vec<IpAddr>,
}

/// Makes and removes the networks of sandboxes.
#[async_trait]
pub trait PodNetwork: Send + Sync {
    /// Makes the namespace.
    async fn create_namespace(&self, netns: &Path) -> Result<(), NetworkError>;
    /// CNI ADD, tap and redirect, in an existing namespace.
    async fn attach(&self, request: &NetworkRequest) -> Result<PodNetworkSetup, NetworkError>;
    /// CNI CHECK.
    async fn check(&self, id: &str) -> Result<(), NetworkError>;
    /// CNI DEL and removal of the namespace. Idempotent.
    async fn detach(&self, id: &str, netns: &Path) -> Result<(), NetworkError>;
    /// Name of the network that new pods get.
    fn ready(&self) -> Result<String, NetworkError>;
    /// Sandboxes that CNI was executed for and not yet undone.
    fn attached(&self) -> Vec<String>;
}

/// [`PodNetwork`] with CNI plugins.
#[derive(Debug, Clone)]
pub struct CniPodNetwork {
    /// Executes the plugins.
    pub cni: CniRuntime,
}

#[async_trait]
impl PodNetwork for CniPodNetwork {
    async fn create_namespace(&self, netns: &Path) -> Result<(), NetworkError> {
        let path = netns.to_path_buf();
        let made = tokio::task::spawn_blocking(move || -> Result<(), NetworkError> {
            netns::create(&path)?;
            netns::run_inside(&path, || {
                link::with_netlink(|handle| async move { link::set_up(&handle, "lo").await })
            })??;
            Ok(())
        });
        made.await?
    }

    async fn attach(&self, request: &NetworkRequest) -> Result<PodNetworkSetup, NetworkError> {
        let [namespace, name, uid] = &request.pod;
        let result = self
            .cni
            .add(&Attachment {
                container_id: request.id.clone(),
                netns: request.netns.clone(),
                args: [
                    ("IgnoreUnknown", "1"),
                    ("K8S_POD_NAMESPACE", namespace),
                    ("K8S_POD_NAME", name),
                    ("K8S_POD_INFRA_CONTAINER_ID", &request.id),
                    ("K8S_POD_UID", uid),
                ]
                .map(|(key, value)| (key.to_string(), value.to_string()))
                .to_vec(),
                port_mappings: request.port_mappings.clone(),
            })
            .await?;
        let netns = request.netns.clone();
        let join = tokio::task::spawn_blocking(move || join_tap(&netns)).await?;
        let (tap, interface) = join?;
        Ok(PodNetworkSetup {
            tap,
            interface,
            addresses: result.addresses(),
        })
    }

    async fn check(&self, id: &str) -> Result<(), NetworkError> {
        Ok(self.cni.check(id).await?)
    }

    async fn detach(&self, id: &str, netns: &Path) -> Result<(), NetworkError> {
        self.cni.delete(id).await?;
        let path = netns.to_path_buf();
        tokio::task::spawn_blocking(move || netns::remove(&path)).await??;
        Ok(())
    }

    fn ready(&self) -> Result<String, NetworkError> {
        self.cni
            .ready()
            .map_err(|error| NetworkError::Cni(error.into()))
    }

    fn attached(&self) -> Vec<String> {
        self.cni.cache.container_ids().unwrap_or_default()
    }
}

fn join_tap(netns: &Path) -> Result<(File, InterfaceState), NetworkError> {
    netns::run_inside(netns, || {
        // The guest speaks for this namespace; a kernel that autoconfigures IPv6 on
        // the tap would speak beside it. Missing where the kernel has no IPv6.
        let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        let tap = tap::create(TAP_NAME)?;
        let interface = link::with_netlink(|handle| async move {
            link::take_over(&handle, INTERFACE_NAME, TAP_NAME).await
        })?;
        Ok((tap, interface))
    })?
}
