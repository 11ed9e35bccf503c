//! `hull doctor`: can this machine run pods, and if not, what is missing.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use crate::cni::{find, find_program};
use crate::settings::Resolved;
use crate::shim;
use hull_node::pod_network::others;

/// Where a guest kernel and initramfs are looked for unless set.
const DEFAULT_KERNEL: &str = "/var/lib/hull/guest/vmlinux";
const DEFAULT_INITRAMFS: &str = "/var/lib/hull/guest/initramfs.cpio";

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Good(String),
    Warning(String),
    Bad(String),
}

use Verdict::{Bad, Good, Warning};

/// Prints every check; fails when one of them is bad.
pub fn run(settings: &Resolved) -> ExitCode {
    let checks = [
        ("root", root()),
        ("kvm", kvm(Path::new("/"))),
        ("tun", tun()),
        ("cgroup v2", cgroup()),
        ("guest kernel", guest(settings)),
        ("hull-shim", program(settings)),
        ("cni plugins", plugins(settings)),
        ("cni configuration", network(settings)),
        ("iptables", iptables()),
        ("nftables", nftables(settings)),
        ("api port", port(settings.listen)),
        ("node port", port(settings.node_listen)),
    ];
    let mut bad = 0;
    for (name, verdict) in &checks {
        let (mark, text) = match verdict {
            Good(text) => ("ok  ", text),
            Warning(text) => ("warn", text),
            Bad(text) => ("FAIL", text),
        };
        bad += usize::from(matches!(verdict, Bad(_)));
        println!("{mark}  {name:<18} {text}");
    }
    if bad == 0 {
        println!("This machine can run pods.");
        return ExitCode::SUCCESS;
    }
    println!("{bad} of {} checks failed.", checks.len());
    ExitCode::FAILURE
}

fn root() -> Verdict {
    if nix::unistd::geteuid().is_root() {
        return Good("running as root".into());
    }
    Bad("hull up and hull node need root: network namespaces, taps, cgroups".into())
}

/// Judges /dev/kvm below `root`, where tests put a tree of their own.
fn kvm(root: &Path) -> Verdict {
    if !root.join("dev/kvm").exists() {
        let cpu = std::fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
        let flag = has_virtualization(&cpu);
        return Bad(if flag {
            "/dev/kvm is missing although the CPU has virtualisation: load kvm_intel or kvm_amd"
                .into()
        } else {
            "/dev/kvm is missing and the CPU shows no vmx or svm flag: enable virtualisation in the firmware, or nested virtualisation on the host".into()
        });
    }
    // Software KVM: guest kernels are emulated instruction by instruction.
    if root.join("sys/module/kvm_pvm").exists() {
        return Bad("/dev/kvm is software KVM (kvm_pvm): guest kernels run about a thousand times too slowly to boot. Use a machine with vmx or svm; the project's tests run in its testnode instead".into());
    }
    let module = ["kvm_intel", "kvm_amd"]
        .into_iter()
        .find(|module| root.join("sys/module").join(module).exists());
    match module {
        Some(module) => Good(format!("/dev/kvm by {module}")),
        None => Warning("/dev/kvm is there, its module is unknown".into()),
    }
}

fn has_virtualization(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .filter(|line| line.starts_with("flags"))
        .any(|line| {
            line.split_whitespace()
                .any(|flag| flag == "vmx" || flag == "svm")
        })
}

fn tun() -> Verdict {
    match std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
    {
        Ok(_) => Good("/dev/net/tun opens".into()),
        Err(error) => Bad(format!("/dev/net/tun: {error}: load the tun module")),
    }
}

fn cgroup() -> Verdict {
    match std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers") {
        Ok(controllers) if controllers.contains("memory") && controllers.contains("cpu") => {
            Good("with the cpu and memory controllers".into())
        }
        Ok(_) => {
            Warning("mounted without the cpu and memory controllers: VMs run without limits".into())
        }
        Err(_) => Warning("not mounted at /sys/fs/cgroup: VMs run without limits".into()),
    }
}

fn guest(settings: &Resolved) -> Verdict {
    let kernel = settings
        .guest_kernel
        .clone()
        .unwrap_or_else(|| DEFAULT_KERNEL.into());
    let initramfs = settings
        .guest_initramfs
        .clone()
        .unwrap_or_else(|| DEFAULT_INITRAMFS.into());
    for path in [&kernel, &initramfs] {
        if !path.is_file() {
            return Bad(format!(
                "{} is missing: build it with images/guest.sh, or give --guest-kernel and --guest-initramfs",
                path.display()
            ));
        }
    }
    let mut magic = [0; 4];
    let read = std::fs::File::open(&kernel)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    if read.is_err() || &magic != b"\x7fELF" {
        return Bad(format!(
            "{} is not an ELF: an uncompressed vmlinux is needed",
            kernel.display()
        ));
    }
    Good(kernel.display().to_string())
}

fn program(settings: &Resolved) -> Verdict {
    match shim::locate(settings) {
        Ok(path) if path.is_file() => Good(path.display().to_string()),
        Ok(path) => Bad(format!("{} is missing", path.display())),
        Err(error) => Bad(error.to_string()),
    }
}

fn plugins(settings: &Resolved) -> Verdict {
    let missing: Vec<&str> = ["bridge", "host-local"]
        .into_iter()
        .filter(|plugin| find(plugin, &settings.cni_bin_dirs).is_none())
        .collect();
    if missing.is_empty() {
        return Good("bridge, host-local".into());
    }
    let directories: Vec<String> = settings
        .cni_bin_dirs
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    Bad(format!(
        "{} missing in {}: install containernetworking-plugins",
        missing.join(", "),
        directories.join(", ")
    ))
}

fn network(settings: &Resolved) -> Verdict {
    match others(&settings.cni_conf_dir).first() {
        Some(path) => Good(path.display().to_string()),
        None => Good(format!(
            "none in {}: the node agent writes a bridge with the node's share of {}",
            settings.cni_conf_dir.display(),
            settings.cluster_network
        )),
    }
}

fn nftables(settings: &Resolved) -> Verdict {
    if !settings.netd {
        return Good("not needed without the service network".into());
    }
    match find_program("nft") {
        Some(program) => Good(program.display().to_string()),
        None => Warning(
            "nft is missing (Debian package nftables): services and network policies do not work"
                .into(),
        ),
    }
}

fn iptables() -> Verdict {
    match find_program("iptables") {
        Some(path) => Good(path.display().to_string()),
        None => Warning("missing: pods get no masquerading and no host ports".into()),
    }
}

fn port(address: SocketAddr) -> Verdict {
    match TcpListener::bind(address) {
        Ok(_) => Good(format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Warning(format!(
            "{address} is in use: by a hull that runs already, or by something else"
        )),
        Err(error) => Bad(format!("{address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("hull-doctor-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    #[test]
    fn kinds_of_kvm_are_told_apart() {
        let amd = tree("amd", &[("dev/kvm", ""), ("sys/module/kvm_amd/x", "")]);
        assert!(matches!(kvm(&amd), Good(text) if text.contains("kvm_amd")));
        let software = tree("pvm", &[("dev/kvm", ""), ("sys/module/kvm_pvm/x", "")]);
        assert!(matches!(kvm(&software), Bad(text) if text.contains("software KVM")));
        let off = tree("off", &[("proc/cpuinfo", "flags\t: fpu svm sse\n")]);
        assert!(matches!(kvm(&off), Bad(text) if text.contains("load kvm")));
        let none = tree("none", &[("proc/cpuinfo", "flags\t: fpu sse\n")]);
        assert!(matches!(kvm(&none), Bad(text) if text.contains("nested")));
        for root in [amd, software, off, none] {
            std::fs::remove_dir_all(root).unwrap();
        }
    }

    #[test]
    fn taken_port_is_a_warning() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(matches!(port(taken.local_addr().unwrap()), Warning(_)));
    }
}
