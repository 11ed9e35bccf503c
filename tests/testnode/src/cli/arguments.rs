//! What can be said on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use hull_testnode::qemu::{Forward, Options};

/// A KVM-capable machine in a box.
#[derive(Debug, Parser)]
#[command(name = "hull-testnode", version, about)]
pub struct Arguments {
    /// Name of the node; several can be up at once
    #[arg(
        long,
        global = true,
        default_value = "default",
        env = "HULL_TESTNODE_NAME"
    )]
    pub name: String,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Boot the node unless it is up, and wait until it answers
    Up(UpArguments),
    /// End the node and remove its disk
    Down,
    /// List the nodes
    Status,
    /// Print the node's serial console
    Logs,
    /// Open a shell (or run a command) with a terminal inside the node
    Shell(RunArguments),
    /// Run a command inside the node, booting it if needed, and return its exit code
    Run(RunArguments),
    /// Run a command where KVM is: here with hardware KVM, else inside the node
    Exec(RunArguments),
    /// Print where `exec` runs commands on this machine, and why
    Where,
    /// Prepare the kernel and initramfs that pods boot, and print their paths
    Guest {
        /// hull-agent, statically linked
        #[arg(long)]
        agent: PathBuf,
        /// Hull's own kernel [default: Debian's cloud kernel]
        #[arg(long)]
        kernel: Option<PathBuf>,
    },
    /// Unpack Debian's cloud kernel to an ELF image, and print its path
    CloudKernel,
    /// Build the sample images into the local registry's storage, and print its path
    Images,
    /// PID 1 of the node
    #[command(hide = true)]
    GuestInit {
        /// The node's configuration
        config: PathBuf,
    },
    /// The command server inside the node
    #[command(hide = true)]
    GuestAgent {
        /// File with the node's secret
        token: PathBuf,
    },
}

/// What a node is made of.
#[derive(Debug, Default, Args)]
pub struct UpArguments {
    /// Memory in MiB [default: 8192]
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Number of vCPUs for commands; the node has one more [default: 2]
    #[arg(long)]
    pub cpus: Option<u32>,
    /// Size of the disk at /var/lib/hull in GiB [default: 32]
    #[arg(long, value_name = "GIB")]
    pub disk: Option<u32>,
    /// Lead 127.0.0.1:HOST to port GUEST of the node
    #[arg(long = "forward", value_name = "HOST:GUEST")]
    pub forwards: Vec<Forward>,
    /// Add a device (QEMU's -device argument)
    #[arg(long = "device", value_name = "QEMUARG")]
    pub devices: Vec<String>,
    /// Add a word to QEMU's command line, before the devices (-object, -netdev, -drive)
    #[arg(long = "qemu", value_name = "WORD", allow_hyphen_values = true)]
    pub backends: Vec<String>,
    /// Add a word to the kernel command line
    #[arg(long = "kernel-arg", value_name = "WORD")]
    pub kernel_args: Vec<String>,
    /// No network but the port forwards
    #[arg(long)]
    pub isolated: bool,
}

impl From<UpArguments> for Options {
    fn from(from: UpArguments) -> Self {
        Self {
            memory_mib: from.memory,
            cpus: from.cpus,
            disk_gib: from.disk,
            forwards: from.forwards,
            devices: from.devices,
            backends: from.backends,
            kernel_args: from.kernel_args,
            isolated: from.isolated,
        }
    }
}

/// A command to run.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// Set a variable for the command, or pass one of ours on
    #[arg(long = "env", value_name = "K=V")]
    pub env: Vec<String>,
    /// Directory to run in [default: this one]
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// Show changes that the host makes below this directory while the node is up
    #[arg(long = "live", value_name = "DIRECTORY")]
    pub live: Vec<PathBuf>,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    pub terminal: bool,
    /// What to boot if the node is not up
    #[command(flatten)]
    pub up: UpArguments,
    /// The command and its arguments
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "CMD"
    )]
    pub argv: Vec<String>,
}
