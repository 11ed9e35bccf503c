//! `make run`'s summary: what it is made of, and that nothing is missing from it in silence.

use std::process::Output;

use crate::{Surroundings, root, text};

/// Stands for kubectl. `$FAILS` and `$EMPTY` are words of the question that fails, or that
/// is answered by nothing.
const KUBECTL: &str = r#"#!/bin/bash
if [ -n "$FAILS" ] && [[ "$*" == *"$FAILS"* ]]; then echo "connection refused" >&2; exit 4; fi
if [ -n "$EMPTY" ] && [[ "$*" == *"$EMPTY"* ]]; then exit 0; fi
case "$*" in
*'.items[0].metadata.name'*) echo -n node-1 ;;
*kernelVersion*) echo -n 6.1.0-56-amd64 ;;
"exec nginx -- uname -r") echo 6.12.90 ;;
"get pod nginx "*podIP*) echo -n 10.88.0.2 ;;
"get pods "*)
    made=2026-11-22T10:00:00Z
    echo "hello-5d4b-a 10.88.0.3 $made 2026-11-22T10:00:07Z"
    echo "hello-5d4b-b 10.88.0.4 $made 2026-11-22T10:00:08Z"
    echo "hello-5d4b-c 10.88.0.5 $made $LAST_READY"
    echo "nginx 10.88.0.2 $made 2026-11-22T10:01:05Z" ;;
*) echo "unexpected: $*" >&2; exit 9 ;;
esac
"#;

/// Stands for `hull-testnode --name NAME exec -- curl ... URL`.
const TESTNODE: &str = r#"#!/bin/bash
[ "${*: -1}" = http://10.88.0.2/ ] || exit 9
if [ "$FAILS" = curl ]; then exit 7; fi
if [ "$EMPTY" = curl ]; then exit 0; fi
echo "<html><head>"
[ "$EMPTY" = title ] || echo "<title>Welcome to nginx!</title>"
"#;

fn summary(variables: &[(&str, &str)]) -> (Surroundings, Output) {
    let surroundings = Surroundings::new();
    surroundings.tool("kubectl", KUBECTL);
    surroundings.program("hull-testnode", TESTNODE);
    let output = surroundings
        .command(&root().join("scripts/summary.sh"))
        .env("KUBECONFIG", surroundings.home().join(".hull/kubeconfig"))
        .envs([("PLACE", "testnode"), ("NODE_NAME", "run")])
        .envs([("FAILS", ""), ("EMPTY", "")])
        .env("LAST_READY", "2026-11-22T10:00:59Z")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    (surroundings, output)
}

/// What `scripts/check-summary.sh` says of this output of `make run`.
fn check(surroundings: &Surroundings, output: &str) -> Output {
    let file = surroundings.home().join("output");
    std::fs::write(&file, output).unwrap();
    let mut command = surroundings.command(&root().join("scripts/check-summary.sh"));
    command.arg(file).output().unwrap()
}

#[test]
fn the_summary_of_a_cluster_that_answers_is_whole() {
    let (surroundings, output) = summary(&[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for line in [
        "node      node-1, kernel 6.1.0-56-amd64\nguest     kernel 6.12.90 in pod nginx\n",
        "page      \"Welcome to nginx!\" from http://10.88.0.2/\n",
        "  nginx                        10.88.0.2        65 s\n",
        "  hello-5d4b-c                 10.88.0.5        59 s\n",
    ] {
        assert!(said.contains(line), "{line:?} in {said}");
    }
    let checked = check(&surroundings, &said);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn an_answer_that_does_not_come_fails_the_run_and_is_named() {
    for (question, what) in [
        ("metadata.name}", "the node's name"),
        ("kernelVersion", "the node's kernel"),
        ("uname", "the guest's kernel"),
        ("pod nginx", "the address of pod nginx"),
        ("get pods", "what pods there are"),
        ("curl", "the page"),
    ] {
        for variable in ["FAILS", "EMPTY"] {
            let (_, output) = summary(&[(variable, question)]);
            let complaint = text(&output.stderr);
            assert!(!output.status.success(), "{variable}={question}");
            assert!(
                complaint.contains(&format!("error: {what} cannot be told")),
                "{complaint}"
            );
            assert_eq!(text(&output.stdout), "", "half a summary is none");
        }
    }
    let (_, output) = summary(&[("EMPTY", "title")]);
    let complaint = text(&output.stderr);
    assert!(
        complaint.contains("no page came from http://10.88.0.2/"),
        "{complaint}"
    );
    let (_, output) = summary(&[("LAST_READY", "")]);
    let complaint = text(&output.stderr);
    assert!(
        complaint.contains("pod hello-5d4b-c has no address or was never ready"),
        "{complaint}"
    );
    assert_eq!(
        (output.status.success(), text(&output.stdout).as_str()),
        (false, "")
    );
}

#[test]
fn every_part_that_a_summary_lacks_is_named() {
    let (surroundings, output) = summary(&[]);
    let whole = text(&output.stdout);
    for (part, what) in [
        ("Hull runs", "the place"),
        ("node  ", "the node and its kernel"),
        ("guest ", "the guest's kernel"),
        ("page ", "the page"),
        ("  nginx ", "pod nginx"),
        ("  hello-5d4b-b", "three pods of hello"),
        ("kubeconfig ", "the kubeconfig"),
        ("  kubectl exec", "commands to try"),
        ("Stop with", "how to stop"),
    ] {
        let lacking: String = whole
            .split_inclusive('\n')
            .filter(|line| !line.starts_with(part))
            .collect();
        assert_ne!(lacking, whole, "{part}");
        let checked = check(&surroundings, &lacking);
        let complaint = text(&checked.stderr);
        assert!(!checked.status.success(), "{part}");
        assert!(complaint.contains(what), "{part}: {complaint}");
    }
    let chatty = format!("hull-testnode: running in node run: no KVM\n{whole}");
    assert!(!check(&surroundings, &chatty).status.success());
}
