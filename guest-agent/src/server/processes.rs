//! Exec, RemoveExec, Signal, ResizeTty and Wait.

use std::sync::Arc;

use hull_agent_protocol::v1::*;
use nix::sys::signal::Signal;

use super::Service;
use crate::error::Error;

/// Highest signal number of Linux.
const MAX_SIGNAL: u32 = 64;

impl Service {
    pub(super) async fn do_exec(&self, request: ExecRequest) -> Result<ExecResponse, Error> {
        let containers = Arc::clone(&self.agent.containers);
        let process = tokio::spawn(async move { containers.exec(&request).await }).await??;
        Ok(ExecResponse {
            pid: process.pid().unsigned_abs(),
        })
    }

    pub(super) async fn do_remove_exec(
        &self,
        request: RemoveExecRequest,
    ) -> Result<RemoveExecResponse, Error> {
        let containers = &self.agent.containers;
        containers.remove_exec(&request.container_id, &request.exec_id)?;
        Ok(RemoveExecResponse {})
    }

    pub(super) async fn do_signal(&self, request: SignalRequest) -> Result<SignalResponse, Error> {
        let container = self.agent.containers.get(&request.container_id)?;
        let process = container.process(&request.exec_id)?;
        let bad = || Error::Invalid(format!("{} is not a signal", request.signal));
        if request.signal == 0 || request.signal > MAX_SIGNAL {
            return Err(bad());
        }
        let number = i32::try_from(request.signal).map_err(|_| bad())?;
        if request.all {
            let signal = Signal::try_from(number).map_err(|_| bad())?;
            container
                .cgroup()
                .signal_all(signal)
                .map_err(Error::io("signal the container's processes"))?;
        } else {
            // A process that has ended needs no signal.
            self.agent
                .reaper
                .signal(process.pid(), number)
                .map_err(Error::io("signal the process"))?;
        }
        Ok(SignalResponse {})
    }

    pub(super) async fn do_resize_tty(
        &self,
        request: ResizeTtyRequest,
    ) -> Result<ResizeTtyResponse, Error> {
        let container = self.agent.containers.get(&request.container_id)?;
        let process = container.process(&request.exec_id)?;
        let terminal = process
            .terminal()
            .ok_or_else(|| Error::State("the process has no terminal".into()))?;
        let size = |value: u32, what: &str| {
            u16::try_from(value).map_err(|_| Error::Invalid(format!("{value} {what} are too many")))
        };
        let (rows, columns) = (
            size(request.rows, "rows")?,
            size(request.columns, "columns")?,
        );
        // The terminal of a process that has ended may be gone.
        if let Err(error) = terminal.resize(rows, columns)
            && process.exit().is_none()
        {
            return Err(Error::io("size the terminal")(error));
        }
        Ok(ResizeTtyResponse {})
    }

    pub(super) async fn do_wait(&self, request: WaitRequest) -> Result<WaitResponse, Error> {
        let container = self.agent.containers.get(&request.container_id)?;
        let exit = container.process(&request.exec_id)?.wait().await;
        Ok(WaitResponse { exit: Some(exit) })
    }
}
