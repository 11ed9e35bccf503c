//! The `hull` program: every part of Hull by one name.
//!
//! ```text
//!  hull up ─┬─ server.rs  store, API server, scheduler, controllers   (also: hull server)
//!           ├─ agent.rs   node agent                                  (also: hull node)
//!           ├─ netd.rs    service network                             (also: hull netd)
//!           └─ shim.rs    hull-shim as a supervised child process
//!  hull fake-nodes: nodes that run nothing, for load tests (fake_nodes.rs)
//!  hull node join: certificates by a token, then agent.rs and netd.rs (join/)
//!  hull token, doctor, kubeconfig, config check, completion, version
//! ```
//! Settings come from flags, the environment (`HULL_...`) and `/etc/hull/hull.toml`, in this order
//! (settings.rs).

mod agent;
mod args;
mod certificates;
mod client;
mod cluster_network;
mod cni;
mod doctor;
mod doors;
mod fake_nodes;
mod files;
mod follow;
mod join;
mod kubeconfig;
mod logging;
mod name_servers;
mod netd;
mod server;
mod settings;
mod shim;
mod shim_config;
mod signals;
mod store;
mod token;
mod up;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Cli, Command, ConfigCommand, NodeCommand};
use join::Invitation;
use settings::Settings;
use token::TokenCommand;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hull: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Up(settings) => daemon(&cli.config, settings, up::run),
        Command::Server(settings) => daemon(&cli.config, settings, server::run),
        Command::Node {
            settings,
            command: None,
        } => daemon(&cli.config, settings, agent::run),
        Command::Node {
            command: Some(NodeCommand::Join(args)),
            ..
        } => {
            let invitation = Invitation::of(&args.server, args.token, args.ca_hash)?;
            daemon(&cli.config, args.settings, |settings| {
                join::run(settings, invitation)
            })
        }
        Command::Token { command } => run_token(&cli.config, command),
        Command::Store { command } => {
            logging::start_quietly()?;
            run_to_end(store::run(command, |settings| {
                settings.resolve(cli.config.as_deref())
            }))
        }
        Command::Netd(settings) => daemon(&cli.config, settings, netd::run),
        Command::Doctor(settings) => Ok(doctor::run(&settings.resolve(cli.config.as_deref())?)),
        Command::Kubeconfig(settings) => {
            let settings = settings.resolve(cli.config.as_deref())?;
            print!("{}", server::admin_kubeconfig(&settings)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Config {
            command: ConfigCommand::Check { file },
        } => {
            Settings::load(&file)?;
            println!("{}: valid", file.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hull", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Version => {
            println!("hull {}", env!("CARGO_PKG_VERSION"));
            println!("kubernetes API {}", hull_node::config::KUBELET_VERSION);
            Ok(ExitCode::SUCCESS)
        }
        Command::FakeNodes(args) => fake_nodes::run(args),
    }
}

/// Runs a long-lived command on a tokio runtime, until SIGTERM or SIGINT.
fn daemon<F>(
    config: &Option<std::path::PathBuf>,
    settings: Settings,
    command: impl FnOnce(settings::Resolved) -> F,
) -> anyhow::Result<ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let settings = settings.resolve(config.as_deref())?;
    logging::start(&settings)?;
    run_to_end(command(settings))
}

fn run_token(
    config: &Option<std::path::PathBuf>,
    command: TokenCommand,
) -> anyhow::Result<ExitCode> {
    let resolved = |settings: Settings| settings.resolve(config.as_deref());
    match command {
        TokenCommand::Create(args) => {
            let settings = resolved(args.settings)?;
            run_to_end(token::create(settings, args.ttl_hours, args.description))
        }
        TokenCommand::List(settings) => run_to_end(token::list(resolved(settings)?)),
        TokenCommand::Delete(args) => {
            run_to_end(token::delete(resolved(args.settings)?, &args.token))
        }
    }
}

fn run_to_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    // One TLS provider for everything in the process. Set once: a second call cannot happen.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(work)?;
    Ok(ExitCode::SUCCESS)
}
