//! Capabilities that a container's process is lent until it executes its command.
//!
//! Installing a seccomp filter without no_new_privs needs CAP_SYS_ADMIN, and it has to be
//! the last thing before the command: libcontainer's own steps would need calls that the
//! profile forbids. So the process keeps the capability, and CAP_SETPCAP to give up its
//! place in the bounding set, until then. What the command has follows from the bounding,
//! inheritable and ambient sets (capabilities(7), "Transformation of capabilities during
//! execve()"): being permitted now gives it nothing.

use std::collections::HashSet;

use nix::errno::Errno;
use oci_spec::runtime::{Capability, Spec};

/// Which of the capabilities were lent, in the spec's annotations.
const ANNOTATION: &str = "hull.agent/lent-capabilities";
/// What is lent, with the numbers of linux/capability.h. CAP_SETPCAP is given back last.
const LENT: [(Capability, &str, libc::c_ulong); 2] = [
    (Capability::SysAdmin, "SYS_ADMIN", 21),
    (Capability::Setpcap, "SETPCAP", 8),
];

/// Lends what installing the spec's seccomp profile needs.
pub fn lend(spec: &mut Spec) {
    let has_profile = spec
        .linux()
        .as_ref()
        .is_some_and(|linux| linux.seccomp().is_some());
    let Some(mut process) = spec.process().clone().filter(|_| has_profile) else {
        return;
    };
    let Some(mut capabilities) = process.capabilities().clone() else {
        return;
    };
    let granted: HashSet<Capability> = capabilities.bounding().clone().unwrap_or_default();
    let missing: Vec<_> = LENT
        .into_iter()
        .filter(|(capability, ..)| !granted.contains(capability))
        .collect();
    let with = |set: &Option<HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(LENT.map(|(capability, ..)| capability));
        Some(set)
    };
    let (bounding, permitted) = (
        with(capabilities.bounding()),
        with(capabilities.permitted()),
    );
    let effective = with(capabilities.effective());
    capabilities
        .set_bounding(bounding)
        .set_permitted(permitted)
        .set_effective(effective);
    process.set_capabilities(Some(capabilities));
    spec.set_process(Some(process));
    let names: Vec<&str> = missing.iter().map(|(_, name, _)| *name).collect();
    let mut annotations = spec.annotations().clone().unwrap_or_default();
    annotations.insert(ANNOTATION.to_owned(), names.join(","));
    spec.set_annotations(Some(annotations));
}

/// Takes back what was lent, as far as the command could inherit it.
///
/// # Errors
/// From prctl(2).
pub fn return_lent(spec: &Spec) -> Result<(), Errno> {
    let annotations = spec.annotations().as_ref();
    let Some(names) = annotations.and_then(|all| all.get(ANNOTATION)) else {
        return Ok(());
    };
    for (_, name, number) in LENT {
        if names.split(',').any(|lent| lent == name) {
            // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory.
            let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
            Errno::result(dropped)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(bounding: &[&str], with_profile: bool) -> Spec {
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0},
                        "capabilities": {"bounding": bounding, "effective": bounding,
                                         "permitted": bounding, "inheritable": [], "ambient": []}},
            "linux": {},
        });
        if with_profile {
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW"});
        }
        let mut spec = serde_json::from_value(spec).unwrap();
        lend(&mut spec);
        spec
    }

    fn lent(spec: &Spec) -> Option<String> {
        spec.annotations().as_ref()?.get(ANNOTATION).cloned()
    }

    fn bounding(spec: &Spec) -> HashSet<Capability> {
        let process = spec.process().clone().unwrap();
        process
            .capabilities()
            .clone()
            .unwrap()
            .bounding()
            .clone()
            .unwrap()
    }

    #[test]
    fn only_what_is_missing_is_taken_back() {
        let spec = spec(&["CAP_SETPCAP", "CAP_CHOWN"], true);
        assert_eq!(lent(&spec).as_deref(), Some("SYS_ADMIN"));
        assert!(bounding(&spec).contains(&Capability::SysAdmin));
        assert_eq!(
            lent(&self::spec(&[], true)).as_deref(),
            Some("SYS_ADMIN,SETPCAP")
        );
    }

    #[test]
    fn nothing_is_lent_without_a_profile() {
        let spec = spec(&["CAP_CHOWN"], false);
        assert_eq!((lent(&spec), bounding(&spec).len()), (None, 1));
    }
}
