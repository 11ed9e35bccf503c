//! The benchmark of the control plane still runs: everything once, as small as can be. What it
//! measures is not looked at.

use std::process::Command;

/// Rows that the tables must have.
const ROWS: [&str; 12] = [
    "| create | 40 |",
    "| get | 40 |",
    "| list a page of 500 |",
    "watch events",
    "etcd's own put",
    "pods bound per second",
    "RSS when ready, MiB",
    "idle CPU, % of one core",
    "one change to 30 watches, p99, ms",
    "RSS with 60 pods and 3 nodes, started with them, MiB",
    "start to ready, 60 pods stored, ms",
    "its peak extra memory, MiB",
];

#[test]
fn every_row_of_the_control_plane_is_printed() {
    let options = [
        ("--runs", "2"),
        ("--objects", "40"),
        ("--watches", "3"),
        ("--changes", "5"),
        ("--watchers", "30"),
        ("--listed-pods", "60"),
        ("--fake-nodes", "3"),
        ("--bindings", "5"),
        ("--idle-seconds", "1"),
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_hull-bench"))
        .arg("control-plane")
        .args(options.iter().flat_map(|(name, value)| [name, value]))
        .output()
        .expect("hull-bench is there");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{errors}");
    for row in ROWS {
        assert!(printed.contains(row), "{row} is not in\n{printed}");
    }
}
