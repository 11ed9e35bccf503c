//! QEMU with the same kernel and initramfs, beside hull-vmm in the same run.
//!
//! QEMU boots the guest with KVM on its smallest machine (`microvm`), one vCPU, a serial console
//! and no devices. Its figure runs from spawning the process to the guest's first word from
//! PID 1, which is what hull-shim's phases `vmm_start` and `kernel` are together.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::Options;
use crate::memory::memory_of;
use crate::stats::Samples;
use crate::table::{Report, Table};

const QEMU: &str = "qemu-system-x86_64";
/// What PID 1 of the guest writes to its console first.
const PID_1_WORD: &str = "hull-agent";
/// Boots measured.
const BOOTS: usize = 3;
/// Guest RAM of hull-vmm's default pod, MiB.
const MEMORY_MIB: u32 = 256;

/// A QEMU whose guest has reached PID 1.
struct Booted {
    process: Child,
    _console: Lines<BufReader<ChildStdout>>,
    took: Duration,
}

/// Adds a table of hull-vmm and QEMU, or says why there is none.
pub async fn compare_boot(
    options: &Options,
    phases: &BTreeMap<String, Samples>,
    report: &mut Report,
) {
    let mut samples = Samples::default();
    for _ in 0..BOOTS {
        match boot(options).await {
            Ok(mut booted) => {
                samples.push(booted.took);
                let _ = booted.process.kill().await;
            }
            Err(error) => {
                report.remark(format!("No peer for the boot: {error:#}."));
                return;
            }
        }
    }
    let mut table = Table::new(&["process start to PID 1 (ms)", "min", "median", "max"]);
    if let (Some(start), Some(kernel)) = (phases.get("vmm_start"), phases.get("kernel")) {
        let cells = [
            start.min() + kernel.min(),
            start.median() + kernel.median(),
            start.max() + kernel.max(),
        ];
        let cells = cells.map(crate::table::milliseconds);
        table.row(
            ["hull-vmm (vmm_start + kernel)".to_owned()]
                .into_iter()
                .chain(cells),
        );
    }
    table.spread(
        "QEMU microvm, same kernel and initramfs, no devices",
        &samples,
    );
    report.table(table);
}

/// Adds QEMU's memory to the table; without a peer, nothing.
pub async fn add_memory(options: &Options, table: &mut Table) {
    let Ok(mut booted) = boot(options).await else {
        return;
    };
    let memory = booted.process.id().and_then(|pid| memory_of(pid).ok());
    let _ = booted.process.kill().await;
    if let Some(memory) = memory {
        table.row([
            "QEMU microvm, same guest, no devices (peer)".to_owned(),
            memory.own_kib.to_string(),
            memory.guest_ram_kib.to_string(),
        ]);
    }
}

async fn boot(options: &Options) -> anyhow::Result<Booted> {
    let kernel = options
        .peer_kernel
        .as_ref()
        .context("--peer-kernel is not given")?;
    let initramfs = options
        .peer_initramfs
        .as_ref()
        .context("--peer-initramfs is not given")?;
    let memory = format!("memory-backend-memfd,id=ram,size={MEMORY_MIB}M,share=on");
    let begun = Instant::now();
    let mut process = Command::new(QEMU)
        .args([
            "-M",
            "microvm,accel=kvm,pcie=on,acpi=on,memory-backend=ram",
            "-cpu",
            "host",
        ])
        .args([
            "-object",
            &memory,
            "-m",
            &MEMORY_MIB.to_string(),
            "-smp",
            "1",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-serial",
            "stdio",
            "-append",
            "console=ttyS0 panic=-1 quiet",
        ])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {QEMU}"))?;
    let output = process.stdout.take().context("QEMU's console")?;
    let mut console = BufReader::new(output).lines();
    let patience = Duration::from_secs(options.patience_seconds);
    let reached = timeout(patience, async {
        while let Some(line) = console
            .next_line()
            .await
            .context("reading QEMU's console")?
        {
            if line.contains(PID_1_WORD) {
                return Ok(());
            }
        }
        anyhow::bail!("QEMU ended before its guest reached PID 1")
    });
    reached
        .await
        .context("QEMU's guest did not reach PID 1 in time")??;
    Ok(Booted {
        process,
        _console: console,
        took: begun.elapsed(),
    })
}
