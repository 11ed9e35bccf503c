//! While a sandbox lives: exits of its containers and the end of its VM become state.

use super::object::{Live, Sandbox};
use super::state::SandboxEvent;
use crate::container::lifecycle;
use crate::container::volumes;
use crate::error::Error;
use crate::journal::ExitRecord;
use crate::shim::{Shim, now_ns};
use crate::vmm::{VmExit, console};
use hull_vmm_client::exit::ExitReason;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::StreamExt;

/// Pause before the event stream of an agent is opened again.
const RESUBSCRIBE_PAUSE: Duration = Duration::from_millis(500);

/// Makes `live` the sandbox's VM, and follows its end.
pub fn begin(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>, live: &Live) {
    sandbox.set_live(Some(live.clone()));
    shim.metrics
        .sandboxes_ready
        .set(super::stop::ready_count(shim));
    tokio::spawn(watch_vm(shim.clone(), sandbox.clone(), live.clone()));
}

/// Starts the tasks that serve the containers of a VM.
pub fn begin_containers(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>, live: Live) {
    let cancelled = live.tasks.clone();
    let events = watch_containers(shim.clone(), sandbox.clone(), live.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = events => {}
        }
    });
    volumes::begin_resync(shim, sandbox, live);
}

async fn watch_vm(shim: Arc<Shim>, sandbox: Arc<Sandbox>, live: Live) {
    let exit = tokio::select! {
        () = live.tasks.cancelled() => return,
        exit = live.vm.exited() => exit,
    };
    let record = exit_record(&exit, &console::tail(&sandbox.paths.console));
    tracing::warn!(
        sandbox_id = sandbox.id,
        reason = record.reason,
        message = record.message,
        "the VM ended"
    );
    if let Err(error) = vm_ended(&shim, &sandbox, record) {
        tracing::error!(sandbox_id = sandbox.id, %error, "noting the end of a VM");
    }
}

/// Notes that the VM of a sandbox is gone.
pub fn vm_ended(shim: &Arc<Shim>, sandbox: &Arc<Sandbox>, exit: ExitRecord) -> Result<(), Error> {
    sandbox.apply(SandboxEvent::VmmExited)?;
    sandbox.update(|record| {
        record.exit.get_or_insert(exit.clone());
    })?;
    sandbox.end_live();
    shim.metrics.vmm_exit(&exit.reason);
    shim.metrics
        .sandboxes_ready
        .set(super::stop::ready_count(shim));
    for container in shim.registry.containers_of(&sandbox.id) {
        lifecycle::lost_with_vm(shim, &container, &exit);
    }
    Ok(())
}

/// What is reported for the containers of a VM that ended.
pub fn exit_record(exit: &VmExit, console: &[String]) -> ExitRecord {
    let (reason, container_exit_code) = match exit.reason {
        ExitReason::GuestShutdown => ("GuestShutdown", 255),
        ExitReason::GuestPanic => ("GuestPanic", 255),
        ExitReason::VmmError => ("VMMError", 255),
        ExitReason::Stopped => ("VMMStopped", 137),
        ExitReason::Killed => ("VMMKilled", 137),
        ExitReason::FileServerDied => ("FileServerDied", 137),
        ExitReason::GuestUnresponsive => ("GuestUnresponsive", 137),
    };
    let mut message = format!("the pod's virtual machine ended: {}", exit.message);
    if !console.is_empty() {
        message.push_str("; last console lines:\n");
        message.push_str(&console.join("\n"));
    }
    ExitRecord {
        reason: reason.to_string(),
        message,
        container_exit_code,
        at_ns: now_ns(),
    }
}

/// Follows the agent's exits. The agent repeats them all to each new subscriber, so
/// none is lost, and those that are known already change nothing.
async fn watch_containers(shim: Arc<Shim>, sandbox: Arc<Sandbox>, live: Live) {
    loop {
        match live.guest.events().await {
            Ok(mut events) => {
                while let Some(Ok(event)) = events.next().await {
                    if !event.exec_id.is_empty() {
                        continue;
                    }
                    let container = shim.registry.container(&event.container_id);
                    if let (Ok(container), Some(exit)) = (container, event.exit)
                        && container.sandbox_id == sandbox.id
                    {
                        lifecycle::exited(&shim, container, exit);
                    }
                }
            }
            Err(error) => {
                tracing::warn!(sandbox_id = sandbox.id, %error, "subscribing to the agent's events");
            }
        }
        tokio::time::sleep(RESUBSCRIBE_PAUSE).await;
    }
}
