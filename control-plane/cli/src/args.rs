//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::fake_nodes::FakeNodes;
use crate::join::JoinArgs;
use crate::settings::Settings;
use crate::store::StoreCommand;
use crate::token::TokenCommand;

/// Kubernetes pods, each in its own microVM.
#[derive(Debug, Parser)]
#[command(name = "hull", version, propagate_version = true)]
pub struct Cli {
    /// Settings file; without this flag /etc/hull/hull.toml is read if it is there
    #[arg(long, global = true, env = "HULL_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine: API server, scheduler, controllers, node agent, runtime,
    /// service network
    Up(Settings),
    /// Run the control plane alone: API server, store, scheduler, controllers
    Server(Settings),
    /// Run the node agent and the runtime alone, against the API server of --kubeconfig; or join a
    /// cluster
    #[command(args_conflicts_with_subcommands = true)]
    Node {
        /// Of the node that --kubeconfig makes
        #[command(flatten)]
        settings: Settings,
        #[command(subcommand)]
        command: Option<NodeCommand>,
    },
    /// Make, list and delete the tokens that machines join the cluster with
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Look after the cluster's store
    Store {
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Check whether this machine can run pods, and say what is missing
    Doctor(Settings),
    /// Print the administrator's kubeconfig of the cluster in --data-dir
    Kubeconfig(Settings),
    /// Check a settings file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,
    /// Run services, network policy and cluster DNS alone, against the API server of --kubeconfig
    Netd(Settings),
    /// Register nodes that run nothing and keep them alive, for load tests
    FakeNodes(FakeNodes),
}

/// `hull node ...`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Make this machine a node of a cluster, and run it; given again later, it needs no token
    Join(Box<JoinArgs>),
}

/// `hull config ...`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether a settings file is valid
    Check {
        /// The file
        file: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
