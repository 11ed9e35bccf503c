//! What `hull store` does.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hull_store::embedded::EmbeddedStore;
use hull_store::encryption::EncryptedStore;
use hull_store::transfer::{self, Backup, Progress, Step, Transferred};

use super::{FileArgs, MigrateArgs, StoreAddress, StoreCommand};
use super::{encryption, running};
use crate::follow::Followed;
use crate::settings::{Resolved, Settings};

/// Pause between two lines that say how far a transfer is.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);

/// Runs one command.
pub async fn run(
    command: StoreCommand,
    resolve: impl Fn(Settings) -> anyhow::Result<Resolved>,
) -> anyhow::Result<()> {
    match command {
        StoreCommand::Status(settings) => status(&resolve(*settings)?.store).await,
        StoreCommand::Compact(settings) => compact(&resolve(*settings)?.store).await,
        StoreCommand::Reencrypt(settings) => reencrypt(&resolve(*settings)?).await,
        StoreCommand::Backup(args) => {
            let FileArgs { file, settings } = *args;
            let done = running::back_up(&resolve(settings)?.store, &file, report()).await?;
            println!("{}: {}", file.display(), describe(&done));
            Ok(())
        }
        StoreCommand::Restore(args) => restore(*args, resolve).await,
        StoreCommand::Migrate(args) => migrate(*args, resolve).await,
    }
}

async fn status(address: &StoreAddress) -> anyhow::Result<()> {
    let status = running::status(address).await?;
    println!("store      {address}");
    println!("revision   {}", status.revision);
    println!("keys       {}", status.keys);
    let mut ill = 0;
    for member in &status.members {
        match &member.state {
            Ok(state) => {
                let leader = if state.leader && status.engine == "etcd" {
                    ", leader"
                } else {
                    ""
                };
                println!(
                    "member     {}: {} {}, {} bytes{leader}",
                    member.name, status.engine, state.version, state.bytes
                );
            }
            Err(error) => {
                ill += 1;
                println!("member     {}: {error}", member.name);
            }
        }
    }
    if ill > 0 {
        bail!("{ill} of {} members do not answer", status.members.len());
    }
    Ok(())
}

async fn compact(address: &StoreAddress) -> anyhow::Result<()> {
    match address {
        StoreAddress::Embedded(path) => {
            if !path.exists() {
                bail!("there is no store in {}", path.display());
            }
            let path = path.clone();
            let (before, after) =
                tokio::task::spawn_blocking(move || EmbeddedStore::shrink(&path)).await??;
            println!("{before} bytes before, {after} bytes now");
        }
        StoreAddress::Etcd(_) => {
            let store = address.open().await?;
            let revision = store.revision().await?;
            store.compact(revision).await?;
            println!("history before revision {revision} dropped");
        }
    }
    Ok(())
}

async fn reencrypt(settings: &Resolved) -> anyhow::Result<()> {
    let Some(path) = &settings.encryption_config else {
        bail!("--encryption-config is needed: it says what is encrypted");
    };
    let rules = Followed::new(path.clone()).read(encryption::rules)?;
    let store = EncryptedStore::new(settings.store.open_existing().await?, rules);
    let done = store.reencrypt(&mut |_| {}).await?;
    println!("{} of {} values written anew", done.rewritten, done.keys);
    Ok(())
}

async fn restore(
    args: FileArgs,
    resolve: impl Fn(Settings) -> anyhow::Result<Resolved>,
) -> anyhow::Result<()> {
    let FileArgs { file, settings } = args;
    let address = resolve(settings)?.store;
    let backup = Backup::open(&file)?;
    let store = address.open_for_import(backup.revision).await?;
    let done = transfer::restore(&backup, store.as_ref(), &mut report()).await?;
    println!("{address}: {}", describe(&done));
    Ok(())
}

async fn migrate(
    args: MigrateArgs,
    resolve: impl Fn(Settings) -> anyhow::Result<Resolved>,
) -> anyhow::Result<()> {
    let settings = resolve(args.settings)?;
    let files = [args.to_ca, args.to_cert, args.to_key];
    let to = StoreAddress::parse(&args.to, files, &settings.data_dir)?;
    if to.to_string() == settings.store.to_string() {
        bail!("{to} is where the store is already");
    }
    if args.clear_target && !to.is_shared() {
        bail!("--clear-target is for etcd: remove the file of {to} yourself");
    }
    let source = settings.store.open_existing().await?;
    let target = to.open_for_import(source.revision().await?).await?;
    if args.clear_target {
        transfer::clear(target.as_ref(), &mut report()).await?;
    }
    let done = transfer::copy(source.as_ref(), target.as_ref(), &mut report())
        .await
        .with_context(|| format!("{to} is not complete; {} is as it was", settings.store))?;
    println!("{to}: {}, every one compared", describe(&done));
    println!("start the servers with --store {}", args.to);
    Ok(())
}

fn describe(done: &Transferred) -> String {
    format!(
        "{} keys, {} bytes, of revision {}",
        done.keys, done.bytes, done.revision
    )
}

/// Says now and then how far it is: for somebody who looks, every step; else only its end.
fn report() -> impl FnMut(Progress) + Send {
    let mut last: Option<Instant> = None;
    let terminal = std::io::stderr().is_terminal();
    move |progress| {
        let finished = progress.done == progress.total;
        let due = last.is_none_or(|last| last.elapsed() >= PROGRESS_PAUSE);
        if finished || (terminal && due) {
            last = Some(Instant::now());
            let step = match progress.step {
                Step::Clear => "cleared",
                Step::Copy => "copied",
                Step::Verify => "compared",
            };
            eprintln!("{step} {} of {} keys", progress.done, progress.total);
        }
    }
}
