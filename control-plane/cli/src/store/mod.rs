//! `hull store`: the cluster's store, looked after while no server uses it (backups, its status,
//! and with etcd whatever moves nothing: also meanwhile).

mod address;
mod commands;
mod encryption;
mod running;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::settings::Settings;

pub use address::StoreAddress;
pub use commands::run;
pub use encryption::encrypted;
pub use running::offer;

/// `hull store ...`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Say which store the settings name, its revision, number of keys, members and size
    Status(Box<Settings>),
    /// etcd: drop all history; embedded: give unused space of the file back
    Compact(Box<Settings>),
    /// Write every value anew that the first key of --encryption-config did not write
    Reencrypt(Box<Settings>),
    /// Write every key, at one revision, into a new file; servers may run
    Backup(Box<FileArgs>),
    /// Write every key of a backup into an empty store
    Restore(Box<FileArgs>),
    /// Copy every key into another, empty store, and compare every key
    Migrate(Box<MigrateArgs>),
}

/// A store and a file.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// The backup
    pub file: PathBuf,
    #[command(flatten)]
    pub settings: Settings,
}

/// Two stores: the one that the settings name, and where it goes.
#[derive(Debug, Args)]
pub struct MigrateArgs {
    /// Where to: embedded, embedded:FILE, etcd://HOST:PORT,... or etcds://...
    #[arg(long, value_name = "ADDRESS")]
    pub to: String,
    /// Who signed the certificates of that etcd, PEM
    #[arg(long, value_name = "FILE")]
    pub to_ca: Option<PathBuf>,
    /// Our certificate for that etcd, PEM
    #[arg(long, value_name = "FILE")]
    pub to_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    pub to_key: Option<PathBuf>,
    /// Delete what the target etcd has before: what an interrupted migration left, say
    #[arg(long)]
    pub clear_target: bool,
    #[command(flatten)]
    pub settings: Settings,
}
