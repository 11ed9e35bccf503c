//! The agent in the guest, as the host sees it: [`hull_agent_protocol`] with the
//! shim's time-outs and errors.

use crate::timeouts::scaled;
use hull_agent_protocol::client::{Address, ConnectError};
use hull_agent_protocol::stream::Header;
use hull_agent_protocol::v1::agent_client::AgentClient;
use hull_agent_protocol::v1::*;
use hull_agent_protocol::{VERSION_MAJOR, VERSION_MINOR};
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

/// For calls that do not wait for a process.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// For a signal, which is delivered without any work.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the agent did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// It cannot be reached.
    #[error("reaching the agent: {0}")]
    Connect(#[from] ConnectError),
    /// It refused or failed.
    #[error("agent {call}: {}", .status.message())]
    Call {
        /// The RPC.
        call: &'static str,
        /// Its answer.
        status: Box<Status>,
    },
    /// It speaks another protocol.
    #[error("the agent speaks protocol {theirs}, this shim speaks {VERSION_MAJOR}")]
    Version {
        /// Its major version.
        theirs: u32,
    },
    /// No answer in time.
    #[error("agent {call}: no answer within {limit:?}")]
    TimedOut {
        /// The RPC.
        call: &'static str,
        /// The limit.
        limit: Duration,
    },
}

impl GuestError {
    /// The gRPC code of the agent's answer, if it answered.
    pub fn code(&self) -> Option<Code> {
        match self {
            GuestError::Call { status, .. } => Some(status.code()),
            _ => None,
        }
    }

    /// Whether the agent gave no answer: it cannot be reached, is silent, or the connection
    /// broke. Of the latter gRPC says so; `Cancelled` is what tonic makes of a request that
    /// had not been sent yet. The agent says none of these.
    pub fn unanswered(&self) -> bool {
        match self {
            GuestError::Connect(_) | GuestError::TimedOut { .. } => true,
            GuestError::Version { .. } => false,
            GuestError::Call { status, .. } => {
                matches!(
                    status.code(),
                    Code::Unavailable | Code::Unknown | Code::Cancelled
                )
            }
        }
    }
}

/// The agent of one sandbox.
#[derive(Debug, Clone)]
pub struct Guest {
    address: Address,
    client: AgentClient<Channel>,
}

/// Defines one call with the usual time-out.
macro_rules! call {
    ($(#[$doc:meta])* $name:ident($request:ty) -> $response:ty) => {
        $(#[$doc])*
        pub async fn $name(&self, request: $request) -> Result<$response, GuestError> {
            let mut client = self.client.clone();
            bounded(stringify!($name), client.$name(request)).await
        }
    };
}

async fn bounded<T>(
    call: &'static str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, GuestError> {
    within(CALL_TIMEOUT, call, answer).await
}

async fn within<T>(
    limit: Duration,
    call: &'static str,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, GuestError> {
    let limit = scaled(limit);
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(GuestError::Call {
            call,
            status: Box::new(status),
        }),
        Err(_) => Err(GuestError::TimedOut { call, limit }),
    }
}

impl Guest {
    /// The agent behind a VMM's vsock socket. Connects when first used.
    pub fn new(vsock: PathBuf) -> Self {
        let address = Address::Vsock(vsock);
        let client = address.client_lazy();
        Self { address, client }
    }

    /// Greets the agent and checks its protocol version.
    pub async fn hello(&self) -> Result<HelloResponse, GuestError> {
        let mut client = self.client.clone();
        let request = HelloRequest {
            major: VERSION_MAJOR,
            minor: VERSION_MINOR,
        };
        let hello = bounded("hello", client.hello(request)).await?;
        if hello.major != VERSION_MAJOR {
            return Err(GuestError::Version {
                theirs: hello.major,
            });
        }
        Ok(hello)
    }

    call!(
        /// Network, hostname, DNS, scratch disk.
        setup_sandbox(SetupSandboxRequest) -> SetupSandboxResponse
    );
    call!(
        /// Writes a volume.
        sync_volume(SyncVolumeRequest) -> SyncVolumeResponse
    );
    call!(
        /// Removes a volume.
        remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse
    );
    call!(
        /// Reads a file of a volume.
        read_volume_file(ReadVolumeFileRequest) -> ReadVolumeFileResponse
    );
    call!(
        /// Makes a container.
        create_container(CreateContainerRequest) -> CreateContainerResponse
    );
    call!(
        /// Starts a container.
        start_container(StartContainerRequest) -> StartContainerResponse
    );
    call!(
        /// Removes a container.
        remove_container(RemoveContainerRequest) -> RemoveContainerResponse
    );
    call!(
        /// Lists containers.
        list_containers(ListContainersRequest) -> ListContainersResponse
    );
    call!(
        /// What a container uses.
        container_stats(ContainerStatsRequest) -> ContainerStatsResponse
    );
    call!(
        /// What the sandbox uses.
        sandbox_stats(SandboxStatsRequest) -> SandboxStatsResponse
    );
    call!(
        /// Changes a container's limits.
        update_container(UpdateContainerRequest) -> UpdateContainerResponse
    );
    call!(
        /// Starts a second process in a container.
        exec(ExecRequest) -> ExecResponse
    );
    call!(
        /// Forgets an exec.
        remove_exec(RemoveExecRequest) -> RemoveExecResponse
    );
    /// Signals a process.
    pub async fn signal(&self, request: SignalRequest) -> Result<SignalResponse, GuestError> {
        let mut client = self.client.clone();
        within(SIGNAL_TIMEOUT, "signal", client.signal(request)).await
    }
    call!(
        /// Resizes a terminal.
        resize_tty(ResizeTtyRequest) -> ResizeTtyResponse
    );

    /// Waits for a process, for as long as it takes.
    pub async fn wait(&self, request: WaitRequest) -> Result<Exit, GuestError> {
        let mut client = self.client.clone();
        let fail = |status| GuestError::Call {
            call: "wait",
            status: Box::new(status),
        };
        let response = client.wait(request).await.map_err(fail)?.into_inner();
        response
            .exit
            .ok_or_else(|| fail(Status::internal("an answer without an exit")))
    }

    /// Subscribes to exits.
    pub async fn events(&self) -> Result<Streaming<Event>, GuestError> {
        let mut client = self.client.clone();
        bounded("events", client.events(Request::new(EventsRequest {}))).await
    }

    /// Opens a byte stream; also returns the offset of its first byte.
    pub async fn open_stream(&self, header: &Header) -> Result<(UnixStream, u64), GuestError> {
        Ok(self.address.open_stream(header).await?)
    }
}
