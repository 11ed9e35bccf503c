//! What the figures were taken on.

use std::fs;

/// A heading and a line with date, CPU, cores, memory and kernel.
pub fn describe() -> String {
    let cpu_info = read("/proc/cpuinfo");
    let model = field(&cpu_info, "model name").unwrap_or("unknown CPU");
    let cores = cpu_info
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory_mib = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024;
    let kernel = read("/proc/sys/kernel/osrelease");
    let emulated = if is_emulated(&cpu_info) {
        "\n\nThis CPU is emulated by software: absolute times mean nothing to users; compare rows."
    } else {
        ""
    };
    format!(
        "# Figures of {}\n\n{cores} × {model}, {memory_mib} MiB, Linux {}{emulated}\n",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        kernel.trim()
    )
}

/// QEMU's software CPU says so in the hypervisor's signature, which the kernel prints nowhere; the
/// sign that is left is a virtual machine that is not under KVM and yet offers virtualisation.
fn is_emulated(cpu_info: &str) -> bool {
    let qemu = read("/sys/class/dmi/id/sys_vendor").contains("QEMU");
    let model = field(cpu_info, "model name").unwrap_or_default();
    let clock = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    qemu && !clock.contains("kvm") && (model.contains("EPYC") || model.contains("TCG"))
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}
