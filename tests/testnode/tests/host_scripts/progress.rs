//! What `scripts/lib.sh` shows while something takes long, and where things run.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::{Surroundings, text};

const OFTEN: (&str, &str) = ("PROGRESS_EVERY_S", "0.1");
/// Far more than a script that hangs on nothing takes.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_silent_command_is_accompanied_and_its_status_kept() {
    // Waits for its own progress to be shown: `said` is where standard error goes.
    let script = r#"
        said=$(mktemp -p "$HOME")
        until_said() { until grep -q "the wait: [0-9]* s so far" "$said"; do sleep 0.01; done; return 5; }
        progress "the wait" until_said 2>"$said" || echo "status $?"
        progress "a word" echo hello"#;
    let output = Surroundings::new().bash(script, &[OFTEN]);
    assert_eq!(text(&output.stdout), "status 5\nhello\n");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn quiet_shows_the_output_of_a_failure_only() {
    let surroundings = Surroundings::new();
    let output = surroundings.bash("quiet work sh -c 'echo fine; echo so >&2'", &[]);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout) + &text(&output.stderr), "");
    let output = surroundings.bash("quiet work sh -c 'echo bad; echo worse >&2; exit 3'", &[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stderr), "bad\nworse\n");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn nothing_goes_on_telling_after_a_script_that_dies() {
    let surroundings = Surroundings::new();
    let begun = Instant::now();
    // Who reads the output waits for all who could write it.
    let script = "dies() { die 'no more'; }; progress work dies";
    let output = surroundings.bash(script, &[("PROGRESS_EVERY_S", "3600")]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: no more\n");
    assert!(begun.elapsed() < PATIENCE);

    let mut killed = surroundings
        .command(Path::new("bash"))
        .args(["-c", "source scripts/lib.sh; progress work read -r"])
        .env(OFTEN.0, OFTEN.1)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(killed.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    assert!(line.starts_with("   work: "), "{line}");
    killed.kill().unwrap();
    // The command, which reads our end of a pipe, ends when that is closed.
    killed.wait().unwrap();
    told.read_to_string(&mut line).unwrap();
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn where_machines_run_is_said_in_one_line_and_once() {
    let surroundings = Surroundings::new();
    let script = r#"
        say_place
        bash -c 'source scripts/lib.sh; say_place; echo "inner $PLACE"'
        say_place
        echo "$PLACE""#;
    surroundings.program("hull-testnode", "#!/bin/sh\necho 'testnode: no svm here'\n");
    let output = surroundings.bash(script, &[]);
    assert_eq!(text(&output.stdout), "inner testnode\ntestnode\n");
    assert_eq!(
        text(&output.stderr),
        "virtual machines run in a testnode: no svm here\n"
    );
    surroundings.program("hull-testnode", "#!/bin/sh\necho 'hardware: it has svm'\n");
    let output = surroundings.bash(script, &[]);
    assert_eq!(text(&output.stdout), "inner hardware\nhardware\n");
    assert_eq!(
        text(&output.stderr),
        "virtual machines run on this machine: it has svm\n"
    );
}

#[test]
fn scaled_multiplies_by_the_time_out_scale() {
    let surroundings = Surroundings::new();
    for (scale, seconds) in [("1", "60\n"), ("10", "600\n"), ("0.5", "30\n")] {
        let output = surroundings.bash("scaled 60", &[("HULL_TIMEOUT_SCALE", scale)]);
        assert_eq!(text(&output.stdout), seconds, "{scale}");
    }
    assert_eq!(text(&surroundings.bash("scaled 60", &[]).stdout), "60\n");
}
