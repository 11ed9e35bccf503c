//! One agent: its parts, wired together, and how it serves and ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hull_agent_protocol::MAX_MESSAGE_BYTES;
use hull_agent_protocol::client::scaled;
use hull_agent_protocol::v1::agent_server::AgentServer;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;

use crate::container::containers::Containers;
use crate::container::rootfs::{RootFs, RootFsError};
use crate::error::Error;
use crate::events::Events;
use crate::layout::Layout;
use crate::listen::{Connection, Listener};
use crate::mounts;
use crate::reaper::Reaper;
use crate::sandbox::Sandbox;
use crate::server::Service;
use crate::streams;
use crate::volume::Volumes;

/// How long killed containers may take to end, before [`scaled`].
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long open calls may take to finish when the agent ends, before [`scaled`].
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Accepted connections that wait for the gRPC server.
const ACCEPT_QUEUE: usize = 16;

/// What differs between the homes of an agent.
#[derive(Debug, Clone)]
pub struct Options {
    /// Directory of the agent's own, see [`Layout`].
    pub base: PathBuf,
    /// Cgroup above the containers'.
    pub cgroup_parent: String,
    /// Whether roots may be directories.
    pub directories: bool,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    /// See [`Sandbox`].
    pub sandbox: Sandbox,
    /// See [`Volumes`].
    pub volumes: Arc<Volumes>,
    /// See [`Containers`].
    pub containers: Arc<Containers>,
    /// See [`Events`].
    pub events: Arc<Events>,
    /// See [`Reaper`].
    pub reaper: Arc<Reaper>,
    /// Where it keeps what it makes.
    pub layout: Layout,
    roots: Arc<RootFs>,
    ending: watch::Sender<bool>,
}

impl Agent {
    /// An agent with nothing in it. Call in a tokio runtime.
    ///
    /// # Errors
    /// When its directories cannot be made or SIGCHLD not handled.
    pub fn new(options: Options) -> io::Result<Arc<Agent>> {
        let layout = Layout::create(options.base)?;
        let reaper = Reaper::start()?;
        let events = Arc::new(Events::default());
        let roots = Arc::new(RootFs::new(layout.clone(), options.directories));
        let volumes = Arc::new(Volumes::new(layout.clone()));
        let containers = Containers::new(
            layout.clone(),
            Arc::clone(&reaper),
            Arc::clone(&events),
            Arc::clone(&roots),
            Arc::clone(&volumes),
            options.cgroup_parent,
        );
        Ok(Arc::new(Agent {
            sandbox: Sandbox::new(layout.clone(), Arc::clone(&roots)),
            volumes,
            containers: Arc::new(containers),
            events,
            reaper,
            layout,
            roots,
            ending: watch::Sender::new(false),
        }))
    }

    /// Serves both ports until [`Agent::shut_down`] is called.
    ///
    /// # Errors
    /// From the gRPC server.
    pub async fn serve(
        self: &Arc<Self>,
        control: Listener,
        stream: Listener,
    ) -> Result<(), tonic::transport::Error> {
        let streams = tokio::spawn(streams::serve(stream, Arc::clone(&self.containers)));
        let service = AgentServer::new(Service::new(Arc::clone(self)))
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut ending = self.ending.subscribe();
        let ended = async move {
            // An error means that the agent itself is gone.
            let _ = ending.wait_for(|ending| *ending).await;
        };
        let mut ending = self.ending.subscribe();
        let server = tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming_shutdown(incoming(control), ended);
        let served = tokio::select! {
            served = server => served,
            () = async {
                let _ = ending.wait_for(|ending| *ending).await;
                tokio::time::sleep(scaled(GOODBYE_TIMEOUT)).await;
            } => Ok(()),
        };
        streams.abort();
        served
    }

    /// Ends every container, SIGTERM first and SIGKILL after `grace`, unmounts the
    /// scratch filesystem, and makes [`Agent::serve`] return once open calls are done.
    ///
    /// # Errors
    /// When the scratch filesystem cannot be unmounted.
    pub async fn shut_down(&self, grace: Duration) -> Result<(), Error> {
        self.signal_all(Signal::SIGTERM);
        if !self.wait_all(grace).await {
            self.signal_all(Signal::SIGKILL);
            if !self.wait_all(scaled(KILL_TIMEOUT)).await {
                tracing::warn!("some processes did not end");
            }
        }
        for container in self.containers.all() {
            let id = container.info().container_id;
            if let Err(error) = self.containers.remove(&id).await {
                tracing::warn!(container = id, %error, "cannot remove a container");
            }
        }
        let (roots, shm) = (Arc::clone(&self.roots), self.layout.shm());
        let unmount = move || {
            let shm = mounts::unmount(&shm).map_err(RootFsError::from);
            roots.unmount_scratch().and(shm)
        };
        let unmounted = tokio::task::spawn_blocking(unmount).await?;
        nix::unistd::sync();
        self.events.close();
        self.ending.send_replace(true);
        Ok(unmounted?)
    }

    fn signal_all(&self, signal: Signal) {
        for container in self.containers.all() {
            let process = container.process("");
            let started = container.info().started_at_ns > 0;
            let sent = match (signal, process) {
                (Signal::SIGKILL, _) | (_, Err(_)) => container.cgroup().signal_all(signal),
                // A process that was never started ignores SIGTERM.
                (_, Ok(process)) if !started => {
                    self.reaper.signal(process.pid(), libc::SIGKILL).map(drop)
                }
                (_, Ok(process)) => self.reaper.signal(process.pid(), signal as i32).map(drop),
            };
            if let Err(error) = sent {
                tracing::warn!(%error, "cannot signal a container");
            }
        }
    }

    /// Whether every first process ended in time.
    async fn wait_all(&self, time: Duration) -> bool {
        let all = async {
            for container in self.containers.all() {
                if let Ok(process) = container.process("") {
                    process.wait().await;
                }
            }
        };
        tokio::time::timeout(time, all).await.is_ok()
    }
}

fn incoming(listener: Listener) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(ACCEPT_QUEUE);
    tokio::spawn(async move { while sender.send(Ok(listener.accept().await)).await.is_ok() {} });
    ReceiverStream::new(receiver)
}
