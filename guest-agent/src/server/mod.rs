//! The gRPC service of `agent.proto`: turns messages into calls of the agent's parts
//! and their errors into statuses. One file per group of calls.
//!
//! | file | calls |
//! |---|---|
//! | [`sandbox`] | Hello, SetupSandbox, SandboxStats, Shutdown, volumes |
//! | [`containers`] | Create, Start, Remove, List, Update, Stats |
//! | [`processes`] | Exec, RemoveExec, Signal, ResizeTty, Wait |
//! | here | Events |

mod containers;
mod processes;
mod sandbox;

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use hull_agent_protocol::v1::agent_server::Agent as AgentApi;
use hull_agent_protocol::v1::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::agent::Agent;
use crate::events::Cursor;

/// Events that wait for a slow subscriber before the log is read on.
const EVENT_QUEUE: usize = 64;

type Answer<T> = Result<Response<T>, Status>;

/// The service.
#[derive(Debug, Clone)]
pub struct Service {
    agent: Arc<Agent>,
}

impl Service {
    /// Serves `agent`.
    pub fn new(agent: Arc<Agent>) -> Service {
        Service { agent }
    }

    fn subscribe(&self) -> ReceiverStream<Result<Event, Status>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(EVENT_QUEUE);
        let events = Arc::clone(&self.agent.events);
        tokio::spawn(async move {
            let mut cursor = Cursor::default();
            loop {
                let new = tokio::select! {
                    new = events.next(&mut cursor) => new,
                    () = sender.closed() => return,
                };
                let Some(new) = new else { return };
                for event in new {
                    if sender.send(Ok(event)).await.is_err() {
                        return;
                    }
                }
            }
        });
        ReceiverStream::new(receiver)
    }
}

/// Runs one call and wraps its answer.
macro_rules! call {
    ($self:ident, $method:ident, $request:ident) => {
        Ok(Response::new($self.$method($request.into_inner()).await?))
    };
}

#[tonic::async_trait]
impl AgentApi for Service {
    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloResponse> {
        Ok(Response::new(sandbox::hello(&request.into_inner())?))
    }

    async fn setup_sandbox(
        &self,
        request: Request<SetupSandboxRequest>,
    ) -> Answer<SetupSandboxResponse> {
        call!(self, do_setup_sandbox, request)
    }

    async fn shutdown(&self, request: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        call!(self, do_shutdown, request)
    }

    async fn sync_volume(&self, request: Request<SyncVolumeRequest>) -> Answer<SyncVolumeResponse> {
        call!(self, do_sync_volume, request)
    }

    async fn remove_volume(
        &self,
        request: Request<RemoveVolumeRequest>,
    ) -> Answer<RemoveVolumeResponse> {
        call!(self, do_remove_volume, request)
    }

    async fn read_volume_file(
        &self,
        request: Request<ReadVolumeFileRequest>,
    ) -> Answer<ReadVolumeFileResponse> {
        call!(self, do_read_volume_file, request)
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        call!(self, do_create, request)
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        call!(self, do_start, request)
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        call!(self, do_remove, request)
    }

    async fn list_containers(
        &self,
        _request: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        let containers = self.agent.containers.list();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_stats(
        &self,
        request: Request<ContainerStatsRequest>,
    ) -> Answer<ContainerStatsResponse> {
        call!(self, do_stats, request)
    }

    async fn sandbox_stats(
        &self,
        _request: Request<SandboxStatsRequest>,
    ) -> Answer<SandboxStatsResponse> {
        Ok(Response::new(self.do_sandbox_stats().await?))
    }

    async fn update_container(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Answer<UpdateContainerResponse> {
        call!(self, do_update, request)
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        call!(self, do_exec, request)
    }

    async fn remove_exec(&self, request: Request<RemoveExecRequest>) -> Answer<RemoveExecResponse> {
        call!(self, do_remove_exec, request)
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Answer<SignalResponse> {
        call!(self, do_signal, request)
    }

    async fn resize_tty(&self, request: Request<ResizeTtyRequest>) -> Answer<ResizeTtyResponse> {
        call!(self, do_resize_tty, request)
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Answer<WaitResponse> {
        call!(self, do_wait, request)
    }

    type EventsStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn events(&self, _request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        Ok(Response::new(Box::pin(self.subscribe())))
    }
}
