//! The life of sandboxes on a fake network and a fake VMM.

// Helpers of tests panic as tests do; the exemption covers only test functions themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/fake.rs"]
mod fake;

use fake::{Fault, World, shim};
use hull_agent_protocol::v1::{ContainerInfo, container_info};
use hull_cri_api::v1::{ContainerConfig, PodSandboxConfig, PodSandboxMetadata};
use hull_shim::container::lifecycle;
use hull_shim::container::object::Container;
use hull_shim::container::state::ContainerState;
use hull_shim::error::Error;
use hull_shim::journal::{ContainerRecord, ExitRecord};
use hull_shim::sandbox::recover::recover;
use hull_shim::sandbox::state::SandboxState;
use hull_shim::sandbox::{check, run, stop};
use hull_shim::shim::Shim;
use hull_vmm_client::exit::ExitReason;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn pod(name: &str) -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        ..Default::default()
    }
}

async fn start(shim: &Arc<Shim>, name: &str) -> Result<String, Error> {
    run::run(shim.clone(), pod(name), String::new()).await
}

/// Files of sandboxes below the shim's directories.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for part in [
        "state/sandboxes",
        "run/sandboxes",
        "run/netns",
        "state/scratch",
    ] {
        for entry in std::fs::read_dir(directory.join(part))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("template-") {
                found.push(format!("{part}/{name}"));
            }
        }
    }
    found
}

async fn wait_state(shim: &Shim, id: &str, state: SandboxState) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while shim.registry.sandbox(id).unwrap().state() != state {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_sandbox_lives_and_leaves_nothing() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let shim = shim(dir.path(), &world);
    let id = start(&shim, "a").await.unwrap();
    let sandbox = shim.registry.sandbox(&id).unwrap();
    assert_eq!(sandbox.state(), SandboxState::Ready);
    assert_eq!(sandbox.record().phases.len(), 5);
    assert_eq!(sandbox.record().guest_kernel, "6.12-fake");
    let again = start(&shim, "a").await.unwrap_err();
    assert!(matches!(again, Error::Reserved { .. }), "{again}");
    stop::stop(&shim, &sandbox).await.unwrap();
    stop::stop(&shim, &sandbox).await.unwrap();
    assert!(world.is_empty());
    assert!(
        !files(dir.path()).is_empty(),
        "a stopped sandbox is still known"
    );
    stop::remove(&shim, &sandbox).await.unwrap();
    assert_eq!(files(dir.path()), Vec::<String>::new());
    start(&shim, "a").await.unwrap();
}

#[tokio::test]
async fn a_failure_in_any_phase_names_the_phase_and_is_unwound() {
    for (fault, phase, words) in [
        (Fault::Netns, "netns", vec![]),
        (Fault::Cni, "cni", vec![]),
        (Fault::Launch, "vmm_start", vec!["/nonexistent"]),
        (
            Fault::SilentGuest,
            "kernel",
            vec![
                "last phase was mounts; vCPU 0 halted in the kernel at 0x1000",
                "last words",
            ],
        ),
        (
            Fault::Panic,
            "kernel",
            vec!["GuestPanic", "last phase was mounts", "last words"],
        ),
        (Fault::Setup, "agent", vec!["no such interface"]),
    ] {
        let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
        *world.fault.lock() = fault;
        let shim = shim(dir.path(), &world);
        let error = start(&shim, "a").await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("phase {phase}")),
            "{fault:?}: {error}"
        );
        for word in words {
            assert!(error.contains(word), "{fault:?}: {error}");
        }
        assert!(world.is_empty(), "{fault:?}");
        assert_eq!(files(dir.path()), Vec::<String>::new(), "{fault:?}");
        assert!(shim.registry.sandboxes().is_empty());
        *world.fault.lock() = Fault::None;
        start(&shim, "a").await.expect("the name is free again");
    }
}

#[tokio::test]
async fn an_unwinding_that_fails_is_finished_by_a_removal() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.fault.lock() = Fault::Setup;
    *world.detach_fails.lock() = true;
    let shim = shim(dir.path(), &world);
    start(&shim, "a").await.unwrap_err();
    let sandbox = shim.registry.sandboxes().pop().expect("still known");
    assert!(stop::remove(&shim, &sandbox).await.is_err());
    *world.detach_fails.lock() = false;
    stop::remove(&shim, &sandbox).await.unwrap();
    assert!(world.is_empty() && files(dir.path()).is_empty());
}

/// What a sandbox notes of its VM's end, once it does.
async fn end_of(shim: &Shim, id: &str) -> ExitRecord {
    wait_state(shim, id, SandboxState::Dead).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(exit) = shim.registry.sandbox(id).unwrap().record().exit {
            break exit;
        }
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_end_of_a_vm_is_noted_with_its_reason() {
    for (reason, noted, container_exit_code) in [
        (ExitReason::GuestShutdown, "GuestShutdown", 255),
        (ExitReason::GuestPanic, "GuestPanic", 255),
        (ExitReason::VmmError, "VMMError", 255),
        (ExitReason::Stopped, "VMMStopped", 137),
        (ExitReason::Killed, "VMMKilled", 137),
        (ExitReason::FileServerDied, "FileServerDied", 137),
        (ExitReason::GuestUnresponsive, "GuestUnresponsive", 137),
    ] {
        let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
        let shim = shim(dir.path(), &world);
        let id = start(&shim, "a").await.unwrap();
        world.end(&id, reason);
        let exit = end_of(&shim, &id).await;
        assert_eq!(
            (exit.reason.as_str(), exit.container_exit_code),
            (noted, container_exit_code)
        );
        for words in ["ended by the test", "last words"] {
            assert!(exit.message.contains(words), "{noted}: {}", exit.message);
        }
        let sandbox = shim.registry.sandbox(&id).unwrap();
        stop::remove(&shim, &sandbox).await.unwrap();
        assert!(world.is_empty() && files(dir.path()).is_empty(), "{noted}");
    }
}

/// Ends the process's knowledge: a new shim has only the journal.
async fn restarted(old: Arc<Shim>, directory: &Path, world: &Arc<World>) -> Arc<Shim> {
    for sandbox in old.registry.sandboxes() {
        sandbox.end_live();
    }
    // The tasks that serve sandboxes hold the shim (and the lock of its image store)
    // until they see that they are cancelled.
    let deadline = Instant::now() + Duration::from_secs(10);
    while Arc::strong_count(&old) > 1 {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(old);
    let new = shim(directory, world);
    recover(&new).await.unwrap();
    new
}

#[tokio::test]
async fn a_restarted_shim_adopts_what_runs() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let first = shim(dir.path(), &world);
    let (kept, lost) = (
        start(&first, "kept").await.unwrap(),
        start(&first, "lost").await.unwrap(),
    );
    let second = {
        // The VM dies while no shim looks.
        for sandbox in first.registry.sandboxes() {
            sandbox.end_live();
        }
        world.kill(&lost);
        restarted(first, dir.path(), &world).await
    };
    assert_eq!(
        second.registry.sandbox(&kept).unwrap().state(),
        SandboxState::Ready
    );
    assert!(second.registry.sandbox(&kept).unwrap().live().is_some());
    assert_eq!(
        second.registry.sandbox(&lost).unwrap().state(),
        SandboxState::Dead
    );
    assert!(matches!(
        start(&second, "kept").await,
        Err(Error::Reserved { .. })
    ));
    world.kill(&kept);
    wait_state(&second, &kept, SandboxState::Dead).await;
    for sandbox in second.registry.sandboxes() {
        stop::remove(&second, &sandbox).await.unwrap();
    }
    assert!(world.is_empty() && files(dir.path()).is_empty());
}

#[tokio::test]
async fn a_restarted_shim_rolls_back_finishes_and_collects() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let first = shim(dir.path(), &world);
    let mut ids = Vec::new();
    for (name, state) in [
        ("creating", SandboxState::Creating),
        ("stopping", SandboxState::Stopping),
        ("removing", SandboxState::Removing),
    ] {
        let id = start(&first, name).await.unwrap();
        // As if the shim had been killed in the middle.
        first
            .registry
            .sandbox(&id)
            .unwrap()
            .update(|record| record.state = state)
            .unwrap();
        ids.push(id);
    }
    let orphan = start(&first, "orphan").await.unwrap();
    first.journal.remove_sandbox(&orphan).unwrap();
    let second = restarted(first, dir.path(), &world).await;
    let left: Vec<String> = second
        .registry
        .sandboxes()
        .iter()
        .map(|sandbox| sandbox.id.clone())
        .collect();
    assert_eq!(
        left,
        [ids[1].clone()],
        "the stopped one stays until it is removed"
    );
    assert_eq!(
        second.registry.sandbox(&ids[1]).unwrap().state(),
        SandboxState::Stopped
    );
    assert!(world.is_empty());
    let sandbox = second.registry.sandbox(&ids[1]).unwrap();
    stop::remove(&second, &sandbox).await.unwrap();
    assert_eq!(files(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_was_cut_short_is_undone_and_no_failure() {
    use container_info::State;
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let first = shim(dir.path(), &world);
    let sandbox_id = start(&first, "p").await.unwrap();
    // Killed after this was on disk: before the agent was told to start the first container,
    // after it had started the second.
    for (id, state) in [("told-late", State::Created), ("runs", State::Running)] {
        let record = running_container(&sandbox_id, id);
        first.journal.save_container(&record).unwrap();
        world.containers.lock().push(ContainerInfo {
            container_id: id.into(),
            state: state as i32,
            ..Default::default()
        });
    }
    let second = restarted(first, dir.path(), &world).await;
    let told_late = second.registry.container("told-late").unwrap();
    assert_eq!(told_late.state(), ContainerState::Created);
    assert_eq!(told_late.record().started_at_ns, 0);
    let runs = second.registry.container("runs").unwrap();
    assert_eq!(runs.state(), ContainerState::Running);
    // The agent makes it anew when it is started again.
    let known: Vec<String> = world
        .containers
        .lock()
        .iter()
        .map(|info| info.container_id.clone())
        .collect();
    assert_eq!(known, ["runs"]);
}

#[tokio::test]
async fn guests_that_do_not_answer_keep_a_restarted_shim_from_nothing() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let first = shim(dir.path(), &world);
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let id = start(&first, name).await.unwrap();
        let record = running_container(&id, &format!("container-{name}"));
        first.journal.save_container(&record).unwrap();
        ids.push(id);
    }
    *world.deaf.lock() = true;
    let began = Instant::now();
    let second = restarted(first, dir.path(), &world).await;
    // A call to an agent may take 30 s, and each of them is called.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let sandbox = |id: &str| second.registry.sandbox(id).unwrap();
    assert!(ids.iter().all(|id| sandbox(id).live().is_some()));

    // The end of a VM is seen, and one can be taken away.
    world.kill(&ids[0]);
    wait_state(&second, &ids[0], SandboxState::Dead).await;
    let lost = second.registry.container("container-a").unwrap();
    assert_eq!(lost.state(), ContainerState::Exited);
    world.kill(&ids[1]);
    wait_state(&second, &ids[1], SandboxState::Dead).await;
    stop::remove(&second, &sandbox(&ids[1])).await.unwrap();

    // What the last one says is heard when it says it.
    let container = second.registry.container("container-c").unwrap();
    assert_eq!(container.state(), ContainerState::Running);
    *world.deaf.lock() = false;
    tokio::time::timeout(Duration::from_secs(20), container.not_running())
        .await
        .unwrap();
    let message = container.record().message;
    assert!(message.contains("does not know"), "{message}");
}

#[tokio::test]
async fn a_guest_that_does_not_hear_the_kill_of_a_container_is_ended() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let shim = shim(dir.path(), &world);
    let id = start(&shim, "p").await.unwrap();
    let record = running_container(&id, "c");
    shim.journal.save_container(&record).unwrap();
    let container = Container::new(record, shim.journal.clone());
    shim.registry.insert_container(container.clone());

    // One that answers is not ended: what it says is told.
    let error = lifecycle::stop(&shim, &container, Duration::ZERO).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("not permitted here"), "{error}");
    let sandbox = shim.registry.sandbox(&id).unwrap();
    assert_eq!(sandbox.state(), SandboxState::Ready);

    *world.deaf.lock() = true;
    // Two time-outs of a signal.
    lifecycle::stop(&shim, &container, Duration::from_secs(1))
        .await
        .unwrap();
    assert_eq!(sandbox.state(), SandboxState::Dead);
    assert_eq!(container.state(), ContainerState::Exited);
    let record = container.record();
    assert_eq!(
        (record.exit_code, record.reason.as_str()),
        (137, "GuestUnresponsive")
    );
    assert!(
        record.message.contains("container c was to be killed"),
        "{}",
        record.message
    );
    stop::remove(&shim, &sandbox).await.unwrap();
    assert!(world.is_empty() && files(dir.path()).is_empty());
}

fn running_container(sandbox_id: &str, id: &str) -> ContainerRecord {
    ContainerRecord {
        id: id.into(),
        sandbox_id: sandbox_id.into(),
        config: ContainerConfig::default(),
        image_id: "sha256:0".into(),
        image_ref: "image".into(),
        stop_signal: 15,
        slot: "slot0".into(),
        spec: serde_json::json!({}),
        log_path: None,
        state: ContainerState::Running,
        created_at_ns: 1,
        started_at_ns: 2,
        finished_at_ns: 0,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
    }
}

#[tokio::test]
async fn a_damaged_record_does_not_keep_the_others_from_recovery() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let first = shim(dir.path(), &world);
    let (good, bad) = (
        start(&first, "good").await.unwrap(),
        start(&first, "bad").await.unwrap(),
    );
    std::fs::write(
        dir.path()
            .join("state/sandboxes")
            .join(&bad)
            .join("sandbox.json"),
        "{",
    )
    .unwrap();
    let second = restarted(first, dir.path(), &world).await;
    assert!(second.registry.sandbox(&good).is_ok());
    assert!(second.registry.sandbox(&bad).is_err());
    assert!(!world.vms.lock().contains_key(&bad), "its VM is an orphan");
}

#[tokio::test]
async fn a_network_that_was_taken_apart_is_reported_until_it_is_whole() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    let shim = shim(dir.path(), &world);
    let id = start(&shim, "a").await.unwrap();
    let sandbox = shim.registry.sandbox(&id).unwrap();
    check::all(&shim).await;
    assert_eq!(sandbox.network_problem(), None);
    *world.check_fails.lock() = true;
    check::all(&shim).await;
    assert!(sandbox.network_problem().is_some());
    assert!(
        shim.metrics
            .text()
            .contains("hull_shim_cni_check_failures_total 1")
    );
    *world.check_fails.lock() = false;
    check::all(&shim).await;
    assert_eq!(sandbox.network_problem(), None);
}

#[tokio::test]
async fn a_failed_start_says_so_in_one_event() {
    let (dir, world) = (tempfile::tempdir().unwrap(), Arc::new(World::default()));
    *world.fault.lock() = Fault::ChattyPanic;
    let shim = shim(dir.path(), &world);
    let error = start(&shim, "a").await.unwrap_err().to_string();
    assert!(error.len() <= 1024, "{} bytes", error.len());
    assert!(error.contains("last phase was mounts"), "{error}");
    assert!(error.ends_with("the very last line"), "{error}");
}
