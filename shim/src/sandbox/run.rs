//! RunPodSandbox.

use super::boot::BootListener;
use super::object::{Live, Sandbox};
use super::state::{SandboxEvent, SandboxState};
use super::{teardown, validate, watch};
use crate::error::{Error, StartPhase};
use crate::guest::Guest;
use crate::ids;
use crate::journal::SandboxRecord;
use crate::network::link::InterfaceState;
use crate::network::pod::{NetworkRequest, PodNetworkSetup};
use crate::shim::{Shim, now_ns};
use crate::timeouts::scaled;
use crate::vmm::process::SCRATCH_SERIAL;
use crate::vmm::{LaunchRequest, Vm, console, process, scratch};
use hull_agent_protocol::v1 as agent;
use hull_cri_api::v1::PodSandboxConfig;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Length of a failed start's message up to which console lines are added: an event of
/// Kubernetes holds 1,024 bytes.
const MAX_ERROR_BYTES: usize = 1000;

/// Makes a sandbox and waits until it takes containers. Returns its id.
pub async fn run(
    shim: Arc<Shim>,
    config: PodSandboxConfig,
    handler: String,
) -> Result<String, Error> {
    validate::handler(&handler)?;
    validate::namespaces(&config)?;
    let name = validate::reserved_name(validate::metadata(&config)?);
    let port_mappings = validate::port_mappings(&config)?;
    let id = ids::generate();
    shim.registry.reserve_sandbox(&name, &id)?;
    let sandbox = match insert(&shim, &id, config, handler) {
        Ok(sandbox) => sandbox,
        Err(error) => {
            shim.registry.release_names(&id);
            return Err(error);
        }
    };
    let _operation = sandbox.operation.lock().await;
    tracing::info!(sandbox_id = id, name, "starting a sandbox");
    let mut start = Start {
        shim: &shim,
        sandbox: &sandbox,
        phase: StartPhase::Netns,
        took: BTreeMap::new(),
    };
    let started = Instant::now();
    match start.everything(port_mappings).await {
        Ok(()) => {
            tracing::info!(sandbox_id = id, elapsed_ms = started.elapsed().as_millis() as u64, phases = ?start.took, "sandbox ready");
            Ok(id)
        }
        Err(source) => {
            let phase = start.phase;
            shim.metrics.start_failure(phase.name());
            // The console is read before the teardown removes its file.
            let error = start_error(phase, source, &sandbox.paths.console);
            tracing::warn!(sandbox_id = id, %error, "sandbox did not start");
            undo(&shim, &sandbox).await;
            Err(error)
        }
    }
}

/// A failed start's error: short, since a node agent makes an event of it.
fn start_error(phase: StartPhase, source: Error, console: &Path) -> Error {
    let mut error = Error::Start {
        phase,
        source: Box::new(source),
        console: String::new(),
    };
    let budget = MAX_ERROR_BYTES.saturating_sub(error.to_string().len());
    if let (StartPhase::Kernel | StartPhase::Agent, Error::Start { console: shown, .. }) =
        (phase, &mut error)
    {
        *shown = console::suffix(console, budget);
    }
    error
}

fn insert(
    shim: &Arc<Shim>,
    id: &str,
    config: PodSandboxConfig,
    handler: String,
) -> Result<Arc<Sandbox>, Error> {
    let limits = &shim.config.vmm;
    let jail_uid = shim
        .registry
        .free_jail_uid(limits.first_uid, limits.uid_count)
        .ok_or_else(|| {
            Error::Exhausted(format!(
                "all {} user ids for VMMs are in use (vmm.uid_count)",
                limits.uid_count
            ))
        })?;
    let record = SandboxRecord {
        id: id.to_string(),
        config,
        handler,
        created_at_ns: now_ns(),
        state: SandboxState::Creating,
        addresses: Vec::new(),
        interface: None,
        jail_uid,
        vmm: None,
        phases: BTreeMap::new(),
        exit: None,
        slots: BTreeMap::new(),
        volumes: BTreeMap::new(),
        guest_kernel: String::new(),
    };
    shim.journal.save_sandbox(&record)?;
    let sandbox = Sandbox::new(record, shim.paths(id), shim.journal.clone());
    shim.registry.insert_sandbox(sandbox.clone());
    Ok(sandbox)
}

/// Takes a failed sandbox away. What cannot be taken away now is tried again by
/// RemovePodSandbox or by the next start of the shim.
async fn undo(shim: &Shim, sandbox: &Sandbox) {
    let marked = sandbox.apply(SandboxEvent::Failed);
    let cleaned = match marked {
        Ok(_) => teardown::everything(shim, sandbox).await,
        Err(error) => Err(error),
    };
    if let Err(error) = cleaned {
        tracing::error!(sandbox_id = sandbox.id, %error, "undoing a failed start");
    }
}

struct Start<'a> {
    shim: &'a Arc<Shim>,
    sandbox: &'a Arc<Sandbox>,
    phase: StartPhase,
    took: BTreeMap<String, f64>,
}

impl Start<'_> {
    async fn everything(
        &mut self,
        port_mappings: Vec<crate::cni::PortMapping>,
    ) -> Result<(), Error> {
        let (shim, sandbox) = (self.shim, self.sandbox);
        let mut clock = Instant::now();
        shim.network.create_namespace(&sandbox.paths.netns).await?;
        self.next(StartPhase::Cni, &mut clock, Instant::now());

        let network = self.attach_network(port_mappings).await?;
        self.next(StartPhase::VmmStart, &mut clock, Instant::now());

        let interface = network.interface.clone();
        let uid = sandbox.record().jail_uid;
        process::make_directories(&sandbox.paths)?;
        let boot = BootListener::bind(&sandbox.paths, uid)?;
        let vm = self.launch(network).await?;
        self.next(StartPhase::Kernel, &mut clock, Instant::now());

        let limit = scaled(Duration::from_secs(shim.config.vmm.boot_timeout_seconds));
        let times = boot.wait(vm.as_ref(), limit).await?;
        self.next(StartPhase::Agent, &mut clock, times.init);

        let guest = Guest::new(sandbox.paths.vsock.clone());
        let kernel = tokio::select! {
            kernel = set_up(sandbox, &guest, &interface) => kernel?,
            exit = vm.exited() => {
                return Err(super::boot::BootError::VmEnded {
                    reason: exit.reason,
                    message: exit.message,
                    last_phase: "ready".to_string(),
                }
                .into());
            }
        };
        self.record(StartPhase::Agent, clock.elapsed());
        sandbox.update(|record| {
            record.guest_kernel = kernel;
            record.phases = self.took.clone();
        })?;
        sandbox.apply(SandboxEvent::Booted)?;
        let live = Live {
            vm,
            guest,
            tasks: CancellationToken::new(),
        };
        watch::begin(shim, sandbox, &live);
        watch::begin_containers(shim, sandbox, live);
        Ok(())
    }

    fn next(&mut self, phase: StartPhase, clock: &mut Instant, now: Instant) {
        self.record(self.phase, now.saturating_duration_since(*clock));
        self.phase = phase;
        *clock = now;
    }

    fn record(&mut self, phase: StartPhase, took: Duration) {
        self.shim.metrics.phase(phase, took);
        self.took
            .insert(phase.name().to_string(), took.as_secs_f64());
    }

    async fn attach_network(
        &self,
        port_mappings: Vec<crate::cni::PortMapping>,
    ) -> Result<PodNetworkSetup, Error> {
        let metadata = self.sandbox.record().config.metadata.unwrap_or_default();
        let request = NetworkRequest {
            id: self.sandbox.id.clone(),
            netns: self.sandbox.paths.netns.clone(),
            pod: [metadata.namespace, metadata.name, metadata.uid],
            port_mappings,
        };
        let setup = self.shim.network.attach(&request).await?;
        self.sandbox.update(|record| {
            record.addresses = setup.addresses.clone();
            record.interface = Some(setup.interface.clone());
        })?;
        Ok(setup)
    }

    async fn launch(&self, network: PodNetworkSetup) -> Result<Arc<dyn Vm>, Error> {
        let (shim, sandbox) = (self.shim, self.sandbox);
        let settings = &shim.config.vmm;
        let record = sandbox.record();
        let (vcpus, memory_mib) =
            validate::size(&record.config, settings.vcpus, settings.memory_mib);
        let (path, size_mib) = (sandbox.paths.scratch.clone(), settings.scratch_mib);
        tokio::task::spawn_blocking(move || scratch::create(&path, size_mib))
            .await
            .map_err(|_| Error::Task("making the scratch disk"))??;
        let linux = record.config.linux.unwrap_or_default();
        let vm = shim
            .vmm
            .launch(LaunchRequest {
                id: sandbox.id.clone(),
                paths: sandbox.paths.clone(),
                vcpus,
                memory_mib,
                tap: network.tap,
                mac: network.interface.mac.clone(),
                mtu: u16::try_from(network.interface.mtu).unwrap_or(u16::MAX),
                scratch: sandbox.paths.scratch.clone(),
                disk_slots: settings.disk_slots,
                uid: record.jail_uid,
                cgroup_parent: linux.cgroup_parent,
            })
            .await?;
        sandbox.update(|record| record.vmm = Some(vm.record()))?;
        Ok(vm)
    }
}

/// Tells the agent what the sandbox is. Returns the guest's kernel release.
async fn set_up(
    sandbox: &Sandbox,
    guest: &Guest,
    interface: &InterfaceState,
) -> Result<String, Error> {
    let hello = guest.hello().await?;
    let config = sandbox.record().config;
    let dns = config.dns_config.unwrap_or_default();
    let hostname = if config.hostname.is_empty() {
        config
            .metadata
            .map(|metadata| metadata.name)
            .unwrap_or_default()
    } else {
        config.hostname
    };
    guest
        .setup_sandbox(agent::SetupSandboxRequest {
            sandbox_id: sandbox.id.clone(),
            hostname,
            interfaces: vec![guest_interface(interface)],
            dns: Some(agent::Dns {
                servers: dns.servers,
                searches: dns.searches,
                options: dns.options,
            }),
            scratch_disk: SCRATCH_SERIAL.to_string(),
            sysctls: config
                .linux
                .map(|linux| linux.sysctls.into_iter().collect())
                .unwrap_or_default(),
            hosts: Vec::new(),
            shm_bytes: validate::shm_bytes(&config.annotations)?,
        })
        .await?;
    Ok(hello.kernel_release)
}

fn guest_interface(state: &InterfaceState) -> agent::Interface {
    let cidr = |(ip, length): &(IpAddr, u8)| format!("{ip}/{length}");
    agent::Interface {
        mac: state.mac.clone(),
        name: crate::cni::exec::INTERFACE_NAME.to_string(),
        mtu: state.mtu,
        addresses: state
            .addresses
            .iter()
            .map(|(ip, length)| agent::Address {
                ip: ip.to_string(),
                prefix_length: u32::from(*length),
            })
            .collect(),
        routes: state
            .routes
            .iter()
            .map(|route| agent::Route {
                destination: match (&route.destination, route.ipv6) {
                    (Some(destination), _) => cidr(destination),
                    // An empty destination is the default route of the gateway's family.
                    (None, _) if route.gateway.is_some() => String::new(),
                    (None, false) => "0.0.0.0/0".to_string(),
                    (None, true) => "::/0".to_string(),
                },
                gateway: route.gateway.map(|ip| ip.to_string()).unwrap_or_default(),
                metric: route.metric,
                on_link: route.on_link,
            })
            .collect(),
        neighbours: state
            .neighbours
            .iter()
            .map(|(ip, mac)| agent::Neighbour {
                ip: ip.to_string(),
                mac: mac.clone(),
            })
            .collect(),
    }
}
