//! The scripts behind the Makefile, with stand-ins for the programs that they call: what they
//! make of an answer, of none, and of a failure. No node is booted.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod make_run;
mod packages;
mod progress;
mod run_in_node;
mod stop;
mod targets;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().unwrap()
}

/// A script in the place of a program.
fn stand_in(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A home, a cache and a target directory for scripts that source `scripts/lib.sh`.
struct Surroundings {
    directory: tempfile::TempDir,
}

impl Surroundings {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        fs::create_dir(&target).unwrap();
        // As if this checkout had built there.
        fs::write(target.join("checkout"), root().to_str().unwrap()).unwrap();
        Self { directory }
    }

    fn home(&self) -> &Path {
        self.directory.path()
    }

    /// A stand-in for one of our own programs.
    fn program(&self, name: &str, text: &str) {
        stand_in(&self.home().join("target/debug").join(name), text);
    }

    /// A stand-in for a tool that is fetched.
    fn tool(&self, name: &str, text: &str) {
        stand_in(&self.home().join("cache/tools/bin").join(name), text);
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(root())
            .env("HOME", self.home())
            .env("HULL_CACHE_DIR", self.home().join("cache"))
            .env("CARGO_TARGET_DIR", self.home().join("target"))
            .env_remove("PROFILE")
            .env_remove("HULL_TESTNODE_SAID")
            .env_remove("HULL_TIMEOUT_SCALE");
        command
    }

    /// Runs a script that has sourced `scripts/lib.sh`.
    fn bash(&self, script: &str, variables: &[(&str, &str)]) -> Output {
        self.command(Path::new("bash"))
            .args(["-c", &format!("source scripts/lib.sh\n{script}")])
            .envs(variables.iter().copied())
            .output()
            .unwrap()
    }
}
