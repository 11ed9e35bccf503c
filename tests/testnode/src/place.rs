//! The one place that chooses between hardware KVM and a testnode.

use std::fs::{self, File};
use std::path::Path;

pub use hull_timeouts::TIMEOUT_SCALE_VARIABLE;

/// Value of [`TIMEOUT_SCALE_VARIABLE`] inside a testnode: nested guests boot in 3 to 8 s there.
pub const TESTNODE_TIMEOUT_SCALE: &str = "10";
/// Its value on hardware.
pub const HARDWARE_TIMEOUT_SCALE: &str = "1";

/// Variable of a caller that has said itself where virtual machines run: `exec` does not then.
pub const SAID_VARIABLE: &str = "HULL_TESTNODE_SAID";

/// Where virtual machines run, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this machine.
    Hardware(String),
    /// In a testnode.
    Testnode(String),
}

/// Looks at this machine.
pub fn choose() -> Place {
    choose_below(Path::new("/"))
}

fn choose_below(root: &Path) -> Place {
    let cpuinfo = fs::read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let flags = cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .unwrap_or_default();
    let has = |flag: &str| flags.split_whitespace().any(|word| word == flag);
    let extension = ["vmx", "svm"].into_iter().find(|flag| has(flag));
    let device = File::options()
        .read(true)
        .write(true)
        .open(root.join("dev/kvm"));
    match (extension, device) {
        _ if root.join("sys/module/kvm_pvm").exists() => Place::Testnode(
            "/dev/kvm is software KVM (kvm_pvm), which emulates guest kernels too slowly".into(),
        ),
        (None, _) => Place::Testnode("the CPU shows neither vmx nor svm".into()),
        (Some(flag), Err(error)) => Place::Testnode(format!(
            "the CPU has {flag}, but /dev/kvm cannot be opened: {error}"
        )),
        (Some(flag), Ok(_)) => Place::Hardware(format!("the CPU has {flag} and /dev/kvm opens")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(flags: &str, kvm: bool, pvm: bool) -> Place {
        let root = tempfile::tempdir().unwrap();
        for directory in ["proc", "dev", "sys/module"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(
            root.path().join("proc/cpuinfo"),
            format!("flags\t\t: fpu {flags} sse\n"),
        )
        .unwrap();
        if kvm {
            fs::write(root.path().join("dev/kvm"), "").unwrap();
        }
        if pvm {
            fs::create_dir(root.path().join("sys/module/kvm_pvm")).unwrap();
        }
        choose_below(root.path())
    }

    #[test]
    fn hardware_needs_the_cpu_and_the_device_and_no_software_kvm() {
        assert!(matches!(machine("vmx", true, false), Place::Hardware(_)));
        assert!(matches!(machine("svm", true, false), Place::Hardware(_)));
        assert!(matches!(machine("svm", true, true), Place::Testnode(_)));
        assert!(matches!(machine("svm", false, false), Place::Testnode(_)));
        assert!(matches!(machine("", true, false), Place::Testnode(_)));
        // A flag is a whole word.
        assert!(matches!(
            machine("svmlock", true, false),
            Place::Testnode(_)
        ));
    }
}
