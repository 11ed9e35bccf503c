//! The Makefile: every target is listed, documented, and made of scripts that exist.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{root, text};

fn make(arguments: &[&str]) -> Output {
    Command::new("make")
        .args(arguments)
        .current_dir(root())
        // Those of the `make test` around us.
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .output()
        .unwrap()
}

fn targets() -> Vec<String> {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let phony = makefile
        .lines()
        .find_map(|line| line.strip_prefix(".PHONY:"));
    phony
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(directory)).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == extension))
        .collect()
}

#[test]
fn help_lists_and_explains_every_target() {
    let help = make(&["help"]);
    assert!(help.status.success(), "{}", text(&help.stderr));
    let help = text(&help.stdout);
    for target in targets() {
        let explained = help.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("make")
                && words.next() == Some(target.as_str())
                && words.next().is_some()
        });
        assert!(explained, "make {target} in {help}");
    }
    assert_eq!(help.lines().count(), targets().len(), "{help}");
    assert_eq!(text(&make(&[]).stdout), help, "`make` alone helps");
}

#[test]
fn every_target_is_documented_and_calls_what_exists() {
    let mut documents = fs::read_to_string(root().join("README.md")).unwrap();
    for page in files("docs", "md") {
        documents.push_str(&fs::read_to_string(page).unwrap());
    }
    for target in targets() {
        assert!(
            documents.contains(&format!("make {target}")),
            "make {target} is documented"
        );
        let plan = make(&["-n", &target]);
        assert!(
            plan.status.success(),
            "make -n {target}: {}",
            text(&plan.stderr)
        );
        let plan = text(&plan.stdout);
        let called = plan
            .split_whitespace()
            .filter(|word| word.ends_with(".sh"))
            .map(|word| root().join(word));
        for script in called {
            let mode = fs::metadata(&script).map(|data| data.permissions().mode());
            assert!(
                mode.is_ok_and(|mode| mode & 0o111 != 0),
                "{target}: {}",
                script.display()
            );
        }
    }
}

#[test]
fn every_script_is_in_its_shells_language() {
    let mut scripts = files("scripts", "sh");
    scripts.extend(files("images", "sh"));
    scripts.extend(files("images/guest-kernel", "sh"));
    assert!(scripts.len() > 20, "{}", scripts.len());
    for script in scripts {
        // What is sourced has no first line of its own; by some it is with a POSIX shell.
        let first = fs::read_to_string(&script).unwrap();
        let shell = match first.lines().next() {
            Some("#!/usr/bin/env bash") => "bash",
            Some("#!/bin/sh") => "sh",
            _ if script.starts_with(root().join("images")) => "sh",
            _ => "bash",
        };
        let checked = Command::new(shell)
            .arg("-n")
            .arg(Path::new(&script))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}", text(&checked.stderr));
    }
}
