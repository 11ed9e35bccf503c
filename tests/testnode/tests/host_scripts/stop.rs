//! The end of the cluster, where nothing else ends with it: `scripts/cluster.sh stop`.

use std::fs;
use std::process::{Child, Command, Output};
use std::thread::{JoinHandle, spawn};

use crate::{Surroundings, root, text};

/// A run directory, and a kubectl that notes what it is asked and fails as told.
fn cluster() -> Surroundings {
    let surroundings = Surroundings::new();
    let kubectl = "#!/bin/sh\necho \"$*\" >>\"$HOME/asked\"\n[ ! -e \"$HOME/refuse\" ] || { echo refused; exit 1; }\n";
    surroundings.tool("kubectl", kubectl);
    fs::create_dir(surroundings.home().join("run")).unwrap();
    surroundings
}

fn stop(surroundings: &Surroundings) -> Output {
    let home = surroundings.home();
    surroundings
        .command(&root().join("scripts/cluster.sh"))
        .arg("stop")
        .env("HULL_RUN_DIR", home.join("run"))
        .env("HULL_RUN_OUT", home)
        // Patience of no second; a registry that nobody has started.
        .env("HULL_TIMEOUT_SCALE", "0.01")
        .env("HULL_REGISTRY_PORT", "1")
        .output()
        .unwrap()
}

/// A process that stands for a VMM of this cluster.
fn machine(surroundings: &Surroundings) -> Child {
    let directory = surroundings.home().join("run/sandboxes/web");
    let mut command = Command::new("sleep");
    command.arg("1000").env("HULL_SANDBOX_DIR", directory);
    command.spawn().unwrap()
}

/// A process that stands for hull, reaped when it ends.
fn hull(surroundings: &Surroundings) -> JoinHandle<()> {
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id().to_string();
    fs::write(surroundings.home().join("run/hull.pid"), pid).unwrap();
    spawn(move || assert!(child.wait().is_ok()))
}

#[test]
fn everything_that_makes_pods_goes_before_hull_does() {
    let surroundings = cluster();
    let hull = hull(&surroundings);
    let output = stop(&surroundings);
    assert!(output.status.success(), "{}", text(&output.stderr));
    hull.join().unwrap();
    let asked = fs::read_to_string(surroundings.home().join("asked")).unwrap();
    for kind in [
        "deployments",
        "daemonsets",
        "statefulsets",
        "cronjobs",
        "jobs",
        "pods",
    ] {
        assert!(asked.contains(kind), "{asked}");
    }
    // What is not there ends, too.
    assert!(stop(&surroundings).status.success());
}

#[test]
fn a_cluster_whose_pods_cannot_be_deleted_runs_on() {
    let surroundings = cluster();
    let hull = hull(&surroundings);
    let refuse = surroundings.home().join("refuse");
    fs::write(&refuse, "").unwrap();
    let output = stop(&surroundings);
    let complaint = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        complaint.contains("refused\nerror: the pods cannot be deleted"),
        "{complaint}"
    );
    assert!(!hull.is_finished());
    fs::remove_file(&refuse).unwrap();
    assert!(stop(&surroundings).status.success());
    hull.join().unwrap();
}

#[test]
fn a_machine_that_is_left_is_named_and_the_stop_fails() {
    let surroundings = cluster();
    let mut machine = machine(&surroundings);
    let output = stop(&surroundings);
    let complaint = text(&output.stderr);
    assert!(!output.status.success());
    let name = format!(
        "error: processes of pods are left:\n{} sleep\n",
        machine.id()
    );
    assert_eq!(complaint, name);
    machine.kill().unwrap();
    machine.wait().unwrap();
    let output = stop(&surroundings);
    assert!(output.status.success(), "{}", text(&output.stderr));
}
