//! `run`, `shell` and `exec`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stderr, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use hull_testnode::client::{self, ClientError, Control};
use hull_testnode::node::Node;
use hull_testnode::place::{self, Place};
use hull_testnode::protocol::{Action, Command};
use hull_testnode::terminal::{self, RawMode};

use super::arguments::RunArguments;
use super::signals::Signals;

/// Variables of the caller that commands inside a node get.
const PASSED: [&str; 8] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TERM",
    "KUBECONFIG",
    "CARGO_TARGET_DIR",
    "CARGO_MANIFEST_DIR",
];
/// As [`PASSED`], for whole families.
const PASSED_PREFIXES: [&str; 4] = ["HULL_", "RUST_", "NEXTEST", "CARGO_BIN_EXE_"];

/// Runs a command inside the node, booting it if needed.
pub fn in_node(node: &Node, arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let command = command(&arguments)?;
    let signals = Signals::start(node)?;
    let state = node.up(&arguments.up.into())?;
    let with_terminal = command.terminal.is_some();
    let connection = node.connect(&state, Action::Run(command))?;
    node.watch(&state);
    let control = Control::new(&connection)?;
    signals.forward_to(control.clone());
    let raw = (with_terminal && stdin().is_terminal()).then(RawMode::enter);
    let result = client::stream(
        connection,
        &control,
        stdin(),
        &mut stdout().lock(),
        &mut stderr().lock(),
    );
    drop(raw);
    match result {
        Ok(exit) => Ok(exit_code(exit.shell_code())),
        // As if our reader had ended us by SIGPIPE; the agent kills the command.
        Err(ClientError::Output(_)) => Ok(exit_code(128 + libc::SIGPIPE)),
        Err(error @ (ClientError::Lost | ClientError::Frame(_))) => {
            Err(anyhow::Error::new(node.lost()).context(error))
        }
        Err(error) => Err(error.into()),
    }
}

/// Runs a command here if the hardware can, else inside the node.
pub fn where_kvm_is(node: &Node, mut arguments: RunArguments) -> anyhow::Result<ExitCode> {
    match place::choose() {
        Place::Hardware(_) => here(&arguments),
        Place::Testnode(why) => {
            if std::env::var_os(place::SAID_VARIABLE).is_none() {
                writeln!(
                    stderr(),
                    "hull-testnode: running in node {}: {why}",
                    node.name()
                )?;
            }
            arguments.terminal = arguments.terminal && stdin().is_terminal();
            in_node(node, arguments)
        }
    }
}

fn here(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    let [program, args @ ..] = arguments.argv.as_slice() else {
        anyhow::bail!("no command given");
    };
    let mut command = std::process::Command::new(program);
    command.args(args).envs(chosen(&arguments.env)?);
    if std::env::var_os(place::TIMEOUT_SCALE_VARIABLE).is_none() {
        command.env(place::TIMEOUT_SCALE_VARIABLE, place::HARDWARE_TIMEOUT_SCALE);
    }
    if let Some(cwd) = &arguments.cwd {
        command.current_dir(cwd);
    }
    Err(command.exec()).with_context(|| format!("cannot run {program}"))
}

/// An exit code as the operating system takes it.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

fn command(arguments: &RunArguments) -> anyhow::Result<Command> {
    if arguments.argv.is_empty() {
        anyhow::bail!("no command given");
    }
    let own = std::env::current_dir().context("finding the working directory")?;
    let cwd = arguments
        .cwd
        .as_ref()
        .map_or_else(|| own.clone(), |path| own.join(path));
    let mut env: BTreeMap<_, _> = std::env::vars()
        .filter(|(name, _)| {
            PASSED.contains(&name.as_str())
                || PASSED_PREFIXES
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        })
        .collect();
    env.extend(chosen(&arguments.env)?);
    let scale = place::TESTNODE_TIMEOUT_SCALE.to_owned();
    env.entry(place::TIMEOUT_SCALE_VARIABLE.to_owned())
        .or_insert(scale);
    let mut live: Vec<_> = arguments.live.iter().map(|path| own.join(path)).collect();
    live.extend(live_directories(&own, &cwd, arguments));
    // Symbolic links would lead out of the live view of the host.
    let live = live
        .iter()
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let terminal = arguments.terminal.then(terminal::size);
    Ok(Command {
        argv: arguments.argv.clone(),
        cwd,
        env,
        live,
        terminal,
    })
}

/// `K=V` sets, `K` alone passes the caller's value on.
fn chosen(words: &[String]) -> anyhow::Result<Vec<(String, String)>> {
    let mut chosen = Vec::new();
    for word in words {
        match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                chosen.push((name.to_owned(), value.to_owned()));
            }
            Some(_) => anyhow::bail!("--env {word:?} names no variable"),
            None => {
                let value = std::env::var(word).with_context(|| format!("--env {word}"))?;
                chosen.push((word.clone(), value));
            }
        }
    }
    Ok(chosen)
}

/// Where the caller's programs are rebuilt: the workspace around the working
/// directory, Cargo's target directory, and the directory of the program to run.
fn live_directories(own: &Path, cwd: &Path, arguments: &RunArguments) -> Vec<PathBuf> {
    let mut live = Vec::new();
    live.extend(
        cwd.ancestors()
            .find(|path| path.join("Cargo.lock").exists())
            .map(Path::to_owned),
    );
    live.extend(std::env::var_os("CARGO_TARGET_DIR").map(|path| own.join(path)));
    if let Some(program) = arguments
        .argv
        .first()
        .filter(|program| program.contains('/'))
    {
        let program = cwd.join(program);
        live.extend(
            program
                .canonicalize()
                .ok()
                .and_then(|path| target_of(&path)),
        );
    }
    live
}

/// The target directory that a program lies in (`CACHEDIR.TAG` marks it).
fn target_of(program: &Path) -> Option<PathBuf> {
    program
        .ancestors()
        .find(|path| path.join("CACHEDIR.TAG").exists())
        .map(Path::to_owned)
}
