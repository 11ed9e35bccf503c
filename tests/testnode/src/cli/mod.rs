//! The command line of `hull-testnode`.

mod arguments;
mod run;
mod signals;

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use hull_testnode::node::Node;
use hull_testnode::{agent, guest, guest_init, images, place};

use arguments::{Arguments, Verb};

/// Exit code for failures of `hull-testnode` itself, as opposed to the command's.
const OWN_FAILURE: u8 = 125;

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("HULL_TESTNODE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        .init();
    match dispatch(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            if let Some(code) = signals::exit_code_if_ended() {
                return run::exit_code(code);
            }
            let _ = writeln!(std::io::stderr(), "hull-testnode: {error:#}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn dispatch(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let node = || Node::new(&arguments.name);
    match arguments.verb {
        Verb::Up(options) => {
            let node = node()?;
            let _signals = signals::Signals::start(&node)?;
            let state = node.up(&options.into())?;
            say(&format!(
                "node {} is up (QEMU pid {})",
                node.name(),
                state.process.pid
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Down => {
            let node = node()?;
            let was = if node.down()? {
                "is down"
            } else {
                "was not up"
            };
            say(&format!("node {} {was}", node.name()))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Status => status(),
        Verb::Logs => {
            let bytes = std::fs::read(node()?.console())?;
            std::io::stdout().write_all(&bytes)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Shell(mut command) => {
            command.terminal = true;
            if command.argv.is_empty() {
                command.argv.push("bash".to_owned());
            }
            run::in_node(&node()?, command)
        }
        Verb::Run(command) => run::in_node(&node()?, command),
        Verb::Exec(command) => run::where_kvm_is(&node()?, command),
        Verb::Where => {
            match place::choose() {
                place::Place::Hardware(why) => say(&format!("hardware: {why}"))?,
                place::Place::Testnode(why) => say(&format!("testnode: {why}"))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Guest { agent, kernel } => {
            let guest = guest::prepare(&agent, kernel.as_deref())?;
            say(&format!(
                "{}\n{}",
                guest.kernel.display(),
                guest.initramfs.display()
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::CloudKernel => {
            say(&guest::cloud_kernel()?.0.display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Images => {
            say(&images::fill()?.display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::GuestInit { config } => Ok(guest_init(&config)),
        Verb::GuestAgent { token } => {
            agent::serve(&token)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}")
}

fn guest_init(config: &Path) -> ExitCode {
    let error = guest_init::run(config);
    let _ = writeln!(std::io::stderr(), "testnode: {error}");
    guest_init::power_off();
    ExitCode::from(OWN_FAILURE)
}

fn status() -> anyhow::Result<ExitCode> {
    for node in Node::all()? {
        let line = match node.running()? {
            None => format!("{}\tdown", node.name()),
            Some(state) => {
                let forwards = state.options.forwards.iter();
                let forwards: Vec<_> = forwards
                    .map(|forward| format!("127.0.0.1:{}->{}", forward.host, forward.guest))
                    .collect();
                let phase = if state.ready { "up" } else { "starting" };
                format!(
                    "{}\t{phase}\tpid {}\t{}",
                    node.name(),
                    state.process.pid,
                    forwards.join(" ")
                )
            }
        };
        say(&line)?;
    }
    Ok(ExitCode::SUCCESS)
}
