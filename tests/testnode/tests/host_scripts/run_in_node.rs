//! `scripts/run-in-node.sh`, with a node that can be lost: what it makes of it is the
//! difference between a failure of the emulator and one of a test.

use std::fs;
use std::process::Command;

use crate::{root, stand_in};

/// Stands for `hull-testnode --name NAME exec -- COMMAND...`: no node, only the command; `true`
/// ends with `$NODE`.
const TESTNODE: &str = r#"#!/bin/bash
shift 4
case $1 in *registry.sh) exit 0 ;; esac
if [ "$1" = true ]; then exit "$NODE"; fi
exec "$@"
"#;

/// A test program of four tests. Run as a whole it ends with `$WHOLE` in the third, the
/// second ending as `$SECOND` says; the third alone ends with 125 the first `$LOSSES`
/// times, the fourth alone with `$FOURTH`.
const PROGRAM: &str = r#"#!/bin/bash
case "$*" in
*--list) printf 'node_%s: test\n' a b c d ;;
*--exact*)
    test=${*: -1}
    echo "$test" >>runs
    if [ "$test" = node_c ] && [ "$(grep -c node_c runs)" -le "$LOSSES" ]; then exit 125; fi
    if [ "$test" = node_d ]; then exit "$FOURTH"; fi ;;
*)
    echo "test node_a ... ok"
    echo "test node_b   ... $SECOND"
    echo -n "test node_c ... "
    exit "$WHOLE" ;;
esac
"#;

/// The runner's exit code, and the tests that it ran by themselves.
fn run(variables: &[(&str, &str)]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("hull-testnode", TESTNODE), ("program", PROGRAM)] {
        stand_in(&directory.path().join(name), text);
    }
    let path = std::env::var("PATH").unwrap();
    let output = Command::new(root().join("scripts/run-in-node.sh"))
        .arg(directory.path().join("program"))
        .args(["--ignored", "--test-threads=1", "node_"])
        .current_dir(directory.path())
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .env("NODE_NAME", "none")
        .envs([("WHOLE", "125"), ("SECOND", "ok")])
        .envs([("LOSSES", "0"), ("FOURTH", "0"), ("NODE", "0")])
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let runs = fs::read_to_string(directory.path().join("runs")).unwrap_or_default();
    (output.status.code().unwrap(), runs.replace('\n', " "))
}

#[test]
fn without_a_loss_the_programs_own_end_counts() {
    assert_eq!(run(&[("WHOLE", "0")]), (0, String::new()));
    assert_eq!(run(&[("WHOLE", "101")]), (101, String::new()));
}

#[test]
fn after_a_loss_only_the_rest_runs_and_each_by_itself() {
    assert_eq!(run(&[]), (0, "node_c node_d ".into()));
    let lost_again = run(&[("LOSSES", "2")]);
    assert_eq!(lost_again, (0, "node_c node_c node_c node_d ".into()));
    assert_eq!(run(&[("FOURTH", "101")]), (101, "node_c node_d ".into()));
}

#[test]
fn a_test_that_failed_before_the_loss_has_failed() {
    let (code, runs) = run(&[("SECOND", "FAILED")]);
    assert_eq!((code, runs.as_str()), (1, "node_b node_c node_d "));
}

#[test]
fn where_no_node_is_to_be_had_nothing_is_repeated() {
    assert_eq!(run(&[("NODE", "125")]), (125, String::new()));
}

#[test]
fn a_test_that_loses_every_node_fails_and_the_next_has_its_turn() {
    let (code, runs) = run(&[("LOSSES", "3")]);
    assert_eq!((code, runs.as_str()), (125, "node_c node_c node_c node_d "));
}
