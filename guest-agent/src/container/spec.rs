//! Turns the OCI spec that the host sent into the one that the engine runs: the agent
//! decides on root, cgroup and namespaces, and adds the sandbox's files in /etc.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Process, Root, Spec};
use tonic::Code;

use super::privileges;
use super::seccomp::{self, SeccompError};
use super::user::{self, UserError};
use crate::resolve;

/// Type of mounts whose source is a volume of the agent.
pub const VOLUME_TYPE: &str = "hull-volume";
/// Type of mounts whose source is a directory or file of the host.
pub const SHARE_TYPE: &str = "hull-share";
/// Type of mounts whose source is the sandbox's /dev/shm.
pub const SHM_TYPE: &str = "hull-shm";
/// How the path of a pid namespace begins that is another container's.
const TARGET_PREFIX: &str = "container:";

/// Why a spec cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Not an OCI runtime spec.
    #[error("malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A part that must be there.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part that this agent does not do.
    #[error("{0} is unimplemented")]
    Unimplemented(&'static str),
    /// See [`SeccompError`].
    #[error(transparent)]
    Seccomp(#[from] SeccompError),
    /// A pid namespace of a container that does not run.
    #[error("linux.namespaces: container {0:?}, whose pid namespace is asked for, does not run")]
    Target(String),
    /// See [`UserError`].
    #[error(transparent)]
    User(#[from] UserError),
    /// The root cannot be looked into.
    #[error("cannot open the root: {0}")]
    Root(std::io::Error),
}

impl SpecError {
    /// The gRPC status code that this error becomes.
    pub fn code(&self) -> Code {
        match self {
            SpecError::Unimplemented(_) | SpecError::Seccomp(SeccompError::Action(_)) => {
                Code::Unimplemented
            }
            SpecError::Target(_) => Code::FailedPrecondition,
            SpecError::Root(_) | SpecError::User(UserError::Read { .. }) => Code::Internal,
            _ => Code::InvalidArgument,
        }
    }
}

/// Reads and checks a spec.
///
/// # Errors
/// [`SpecError`] names the part at fault.
pub fn parse(json: &[u8]) -> Result<Spec, SpecError> {
    let spec: Spec = serde_json::from_slice(json)?;
    let process = spec
        .process()
        .as_ref()
        .ok_or(SpecError::Missing("process"))?;
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(SpecError::Missing("process.args"));
    }
    if spec.hooks().is_some() {
        return Err(SpecError::Unimplemented("hooks"));
    }
    if let Some(profile) = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref()) {
        seccomp::compile(profile)?;
    }
    Ok(spec)
}

/// What the agent decides about a container.
pub struct Decisions<'a> {
    /// Mounted root.
    pub root: &'a Path,
    /// Whether the container may not write to it.
    pub read_only: bool,
    /// Whether its process has a pseudo-terminal.
    pub tty: bool,
    /// Its cgroup.
    pub cgroup: &'a Path,
    /// The sandbox's files and where they go.
    pub etc: Vec<(PathBuf, &'static str)>,
    /// The sandbox's /dev/shm.
    pub shm: PathBuf,
    /// The first process of a running container, by its id.
    pub pid_of: &'a dyn Fn(&str) -> Option<i32>,
}

/// Applies the decisions to a spec whose volume mounts are resolved already.
///
/// # Errors
/// When the user is unknown to the image.
pub fn apply(spec: &mut Spec, decisions: &Decisions<'_>) -> Result<(), SpecError> {
    let read_only = spec
        .root()
        .as_ref()
        .and_then(Root::readonly)
        .unwrap_or(false);
    let mut root = Root::default();
    root.set_path(decisions.root.to_owned());
    root.set_readonly(Some(read_only || decisions.read_only));
    spec.set_root(Some(root));

    let mut process = spec
        .process()
        .clone()
        .ok_or(SpecError::Missing("process"))?;
    process.set_terminal(Some(decisions.tty));
    resolve_user(&mut process, decisions.root)?;
    spec.set_process(Some(process));

    let mut linux = spec.linux().clone().unwrap_or_else(bare_linux);
    linux.set_cgroups_path(Some(decisions.cgroup.to_owned()));
    let namespaces = linux.namespaces().clone().unwrap_or_default();
    let namespaces = container_namespaces(namespaces, decisions.pid_of)?;
    linux.set_namespaces(Some(namespaces));
    spec.set_linux(Some(linux));
    privileges::lend(spec);

    let mut mounts = spec.mounts().clone().unwrap_or_default();
    for mount in &mut mounts {
        if mount.typ().as_deref() == Some(SHM_TYPE) {
            bind_from(mount, decisions.shm.clone());
        }
    }
    for (source, destination) in &decisions.etc {
        let destination = Path::new(destination);
        if !mounts
            .iter()
            .any(|mount| mount.destination() == destination)
        {
            mounts.push(bind(source, destination));
        }
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// Replaces `user.username` by the numbers that the image gives it.
///
/// # Errors
/// When the image does not know the user or group.
pub fn resolve_user(process: &mut Process, root: &Path) -> Result<(), SpecError> {
    let mut user = process.user().clone();
    let Some(name) = user.username().clone().filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    let root = resolve::root(root).map_err(SpecError::Root)?;
    let identity = user::lookup(root, &name)?;
    let mut groups = user.additional_gids().clone().unwrap_or_default();
    groups.extend(identity.additional_gids);
    groups.sort_unstable();
    groups.dedup();
    user.set_uid(identity.uid)
        .set_gid(identity.gid)
        .set_additional_gids(Some(groups))
        .set_username(None);
    process.set_user(user);
    Ok(())
}

/// A container's own namespaces; the rest are the sandbox's.
fn container_namespaces(
    namespaces: Vec<LinuxNamespace>,
    pid_of: &dyn Fn(&str) -> Option<i32>,
) -> Result<Vec<LinuxNamespace>, SpecError> {
    let sandbox = [
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Uts,
    ];
    let mut own: Vec<LinuxNamespace> = namespaces
        .into_iter()
        .filter(|namespace| !sandbox.contains(&namespace.typ()))
        .collect();
    if !own.iter().any(|n| n.typ() == LinuxNamespaceType::Mount) {
        let mut mount = LinuxNamespace::default();
        mount.set_typ(LinuxNamespaceType::Mount);
        own.push(mount);
    }
    for namespace in &mut own {
        let path = namespace.path().as_ref().map(|path| path.to_string_lossy());
        let target = path
            .as_ref()
            .and_then(|path| path.strip_prefix(TARGET_PREFIX));
        if let Some(target) = target.map(str::to_owned) {
            let pid = pid_of(&target).ok_or(SpecError::Target(target))?;
            namespace.set_path(Some(format!("/proc/{pid}/ns/pid").into()));
        }
    }
    Ok(own)
}

/// OCI defaults of the library would add namespaces and masked paths nobody asked for.
fn bare_linux() -> Linux {
    let mut linux = Linux::default();
    linux
        .set_namespaces(None)
        .set_resources(None)
        .set_masked_paths(None)
        .set_readonly_paths(None);
    linux
}

/// Makes `mount` a bind mount of `source`.
pub fn bind_from(mount: &mut Mount, source: PathBuf) {
    let mut options = mount.options().clone().unwrap_or_default();
    if !options
        .iter()
        .any(|option| option == "bind" || option == "rbind")
    {
        options.push("bind".into());
    }
    mount
        .set_typ(Some("bind".into()))
        .set_source(Some(source))
        .set_options(Some(options));
}

fn bind(source: &Path, destination: &Path) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination.to_owned());
    mount.set_options(None);
    bind_from(&mut mount, source.to_owned());
    mount
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(extra: serde_json::Value) -> Spec {
        let mut spec = json!({
            "ociVersion": "1.1.0",
            "process": {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        });
        spec.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        parse(&serde_json::to_vec(&spec).unwrap()).unwrap()
    }

    fn apply_to(spec: &mut Spec, root: &Path) {
        let decisions = Decisions {
            root,
            read_only: false,
            tty: true,
            cgroup: Path::new("/hull/c"),
            etc: vec![("/run/hull/etc/hosts".into(), "/etc/hosts")],
            shm: "/run/hull/shm".into(),
            pid_of: &|id| (id == "runs").then_some(77),
        };
        apply(spec, &decisions).unwrap();
    }

    #[test]
    fn namespaces_of_the_sandbox_are_dropped_and_mount_is_always_own() {
        let mut spec = spec(json!({"linux": {"namespaces": [
            {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "pid"}]}}));
        apply_to(&mut spec, Path::new("/tmp"));
        let namespaces = spec.linux().clone().unwrap().namespaces().clone().unwrap();
        let types: Vec<_> = namespaces.iter().map(LinuxNamespace::typ).collect();
        assert_eq!(types, [LinuxNamespaceType::Pid, LinuxNamespaceType::Mount]);
    }

    #[test]
    fn pid_namespace_of_another_container_is_found_by_its_id() {
        let joining = |id: &str| {
            let path = format!("container:{id}");
            spec(json!({"linux": {"namespaces": [{"type": "pid", "path": path}]}}))
        };
        let mut joined = joining("runs");
        apply_to(&mut joined, Path::new("/tmp"));
        let namespaces = joined
            .linux()
            .clone()
            .unwrap()
            .namespaces()
            .clone()
            .unwrap();
        assert_eq!(
            namespaces[0].path().as_deref(),
            Some(Path::new("/proc/77/ns/pid"))
        );
        let pid_of = |_: &str| None;
        let own = joining("gone").linux().clone().unwrap();
        let own = own.namespaces().clone().unwrap();
        let error = container_namespaces(own, &pid_of).unwrap_err();
        assert!(matches!(&error, SpecError::Target(id) if id == "gone"));
        assert_eq!(error.code(), Code::FailedPrecondition);
    }

    #[test]
    fn root_and_cgroup_are_the_agents() {
        let mut spec = spec(json!({
            "root": {"path": "/etc", "readonly": true},
            "linux": {"cgroupsPath": "/elsewhere"},
        }));
        apply_to(&mut spec, Path::new("/tmp"));
        let root = spec.root().clone().unwrap();
        assert_eq!(
            (root.path().as_path(), root.readonly()),
            (Path::new("/tmp"), Some(true))
        );
        let cgroup = spec.linux().clone().unwrap().cgroups_path().clone();
        assert_eq!(cgroup, Some("/hull/c".into()));
    }

    #[test]
    fn hosts_file_is_added_unless_the_spec_mounts_one() {
        let hosts = |spec: &Spec| {
            let mounts = spec.mounts().clone().unwrap();
            let found: Vec<_> = mounts
                .iter()
                .filter(|m| m.destination() == Path::new("/etc/hosts"))
                .map(|m| m.source().clone().unwrap())
                .collect();
            found
        };
        let mut with_none = spec(json!({}));
        apply_to(&mut with_none, Path::new("/tmp"));
        assert_eq!(hosts(&with_none), [PathBuf::from("/run/hull/etc/hosts")]);
        let mut with_own = spec(json!({"mounts": [
            {"destination": "/etc/hosts", "type": "bind", "source": "/own"}]}));
        apply_to(&mut with_own, Path::new("/tmp"));
        assert_eq!(hosts(&with_own), [PathBuf::from("/own")]);
    }

    #[test]
    fn user_name_becomes_numbers_of_the_image() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "web:x:33:34::/:/x\n").unwrap();
        let mut spec = spec(json!({}));
        let mut process = spec.process().clone().unwrap();
        process.user_mut().set_username(Some("web".into()));
        spec.set_process(Some(process));
        apply_to(&mut spec, root.path());
        let user = spec.process().clone().unwrap().user().clone();
        assert_eq!((user.uid(), user.gid()), (33, 34));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        let refused =
            |json: serde_json::Value| parse(&serde_json::to_vec(&json).unwrap()).unwrap_err();
        let process = json!({"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
        let error = refused(json!({"ociVersion": "1.1.0", "process": process, "hooks": {}}));
        assert_eq!(
            (error.code(), error.to_string().as_str()),
            (Code::Unimplemented, "hooks is unimplemented")
        );
        let error = refused(json!({"ociVersion": "1.1.0"}));
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(parse(b"{").unwrap_err().code(), Code::InvalidArgument);
    }
}
