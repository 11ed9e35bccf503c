//! Capability sets.

use crate::error::Error;
use hull_cri_api::v1::Capability;
use std::collections::BTreeSet;

/// What a container has unless it says otherwise: the set that Docker made customary.
const DEFAULT: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Every capability of Linux 6.
const ALL: [&str; 41] = [
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_AUDIT_WRITE",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_KILL",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_RAW",
    "CAP_PERFMON",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYSLOG",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_CHROOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_WAKE_ALARM",
];

/// What a container gets: sorted names, and those of them that are ambient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CapabilitySets {
    /// Bounding, permitted, effective.
    pub granted: Vec<String>,
    /// Ambient (and inheritable).
    pub ambient: Vec<String>,
}

/// Computes the sets. `ALL` in either list means every one; drops come after adds
/// unless everything is dropped, then adds come after it.
pub fn sets(request: Option<&Capability>, privileged: bool) -> Result<CapabilitySets, Error> {
    let all = || {
        ALL.iter()
            .map(|name| name.to_string())
            .collect::<BTreeSet<_>>()
    };
    if privileged {
        return Ok(CapabilitySets {
            granted: all().into_iter().collect(),
            ambient: Vec::new(),
        });
    }
    let empty = Capability::default();
    let request = request.unwrap_or(&empty);
    let add = names(&request.add_capabilities)?;
    let drop = names(&request.drop_capabilities)?;
    let mut granted: BTreeSet<String> = DEFAULT.iter().map(|name| name.to_string()).collect();
    if add.contains(EVERYTHING) {
        granted = all();
    }
    if drop.contains(EVERYTHING) {
        granted.clear();
    }
    granted.extend(add.iter().filter(|name| *name != EVERYTHING).cloned());
    granted.retain(|name| !drop.contains(name));
    let ambient = names(&request.add_ambient_capabilities)?;
    granted.extend(ambient.iter().cloned());
    Ok(CapabilitySets {
        granted: granted.into_iter().collect(),
        ambient: ambient.into_iter().collect(),
    })
}

const EVERYTHING: &str = "ALL";

fn names(given: &[String]) -> Result<BTreeSet<String>, Error> {
    given
        .iter()
        .map(|name| {
            let upper = name.to_ascii_uppercase();
            if upper == EVERYTHING {
                return Ok(upper);
            }
            let full = if upper.starts_with("CAP_") {
                upper
            } else {
                format!("CAP_{upper}")
            };
            if ALL.contains(&full.as_str()) {
                Ok(full)
            } else {
                Err(Error::InvalidArgument(format!(
                    "unknown capability {name:?}"
                )))
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(add: &[&str], drop: &[&str]) -> Vec<String> {
        let list = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let request = Capability {
            add_capabilities: list(add),
            drop_capabilities: list(drop),
            add_ambient_capabilities: Vec::new(),
        };
        sets(Some(&request), false).unwrap().granted
    }

    #[test]
    fn adds_and_drops_change_the_customary_set() {
        assert_eq!(granted(&[], &[]).len(), DEFAULT.len());
        assert!(granted(&["net_admin"], &[]).contains(&"CAP_NET_ADMIN".to_string()));
        assert!(!granted(&[], &["CHOWN"]).contains(&"CAP_CHOWN".to_string()));
        assert_eq!(granted(&["ALL"], &[]).len(), ALL.len());
        assert_eq!(granted(&["NET_ADMIN"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert!(!granted(&["ALL"], &["SYS_ADMIN"]).contains(&"CAP_SYS_ADMIN".to_string()));
    }

    #[test]
    fn privileged_means_all_and_unknown_names_are_refused() {
        assert_eq!(sets(None, true).unwrap().granted.len(), ALL.len());
        let request = Capability {
            add_capabilities: vec!["NONSENSE".into()],
            ..Default::default()
        };
        assert!(sets(Some(&request), false).is_err());
    }
}
