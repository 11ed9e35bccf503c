//! The hull-agent program: PID 1 of a guest, the agent of a sandbox on a host, or one
//! operation of the container engine.

use std::path::Path;
use std::process::exit;

use hull_agent::{LOG_VARIABLE, engine, native, pid1};
use tracing_subscriber::EnvFilter;

const USAGE: &str = "usage: hull-agent --listen-dir DIR [--cgroup-parent PATH]\n\
       hull-agent            (as PID 1 of a guest)";

fn main() {
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let status = match words.as_slice() {
        [engine::child::SUBCOMMAND, ..] => engine::child::main(&args[1..]),
        ["--listen-dir", directory] => run_native(directory, pid1::CGROUP_PARENT),
        ["--listen-dir", directory, "--cgroup-parent", cgroup] => run_native(directory, cgroup),
        ["--version"] => {
            println!("hull-agent {}", env!("CARGO_PKG_VERSION"));
            0
        }
        // The kernel passes words of its command line that it does not know to PID 1.
        _ if std::process::id() == 1 => {
            start_log();
            pid1::main()
        }
        _ => {
            eprintln!("{USAGE}");
            2
        }
    };
    exit(status);
}

fn run_native(directory: &str, cgroup_parent: &str) -> i32 {
    start_log();
    match native::main(Path::new(directory), cgroup_parent) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("hull-agent: {error}");
            1
        }
    }
}

fn start_log() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE).unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
