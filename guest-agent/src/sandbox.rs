//! The sandbox as a whole: hostname, files in /etc, kernel parameters, network and
//! scratch filesystem.

use std::path::Path;
use std::sync::Arc;

use hull_agent_protocol::v1::{Dns, SetupSandboxRequest};
use nix::mount::MsFlags;
use tokio::task::spawn_blocking;

use crate::container::rootfs::{RootFs, RootFsError};
use crate::error::Error;
use crate::layout::Layout;
use crate::mounts;
use crate::network;

/// Longest hostname in bytes (sethostname(2)).
const MAX_HOSTNAME: usize = 64;
/// Size of /dev/shm when the host names none.
const SHM_BYTES: u64 = 64 << 20;

/// Sets the sandbox up as its host asks.
#[derive(Debug)]
pub struct Sandbox {
    layout: Layout,
    roots: Arc<RootFs>,
    /// What was set up, to recognise the same request.
    done: tokio::sync::Mutex<Option<SetupSandboxRequest>>,
}

impl Sandbox {
    /// Not set up yet.
    pub fn new(layout: Layout, roots: Arc<RootFs>) -> Sandbox {
        Sandbox {
            layout,
            roots,
            done: tokio::sync::Mutex::default(),
        }
    }

    /// Does what the request says. Idempotent; another request after the first changes
    /// everything but the scratch disk.
    ///
    /// # Errors
    /// [`Error`] names the step.
    pub async fn setup(&self, request: SetupSandboxRequest) -> Result<(), Error> {
        let mut done = self.done.lock().await;
        if done.as_ref() == Some(&request) {
            return Ok(());
        }
        check(&request, done.as_ref())?;
        set_hostname(&request.hostname)?;
        self.write_etc(&request)?;
        for (name, value) in &request.sysctls {
            set_sysctl(name, value)?;
        }
        network::configure(&request.interfaces).await?;
        let (roots, disk) = (Arc::clone(&self.roots), request.scratch_disk.clone());
        spawn_blocking(move || roots.mount_scratch(&disk)).await??;
        if done.is_none() {
            mount_shm(&self.layout.shm(), request.shm_bytes)?;
        }
        tracing::info!(sandbox = request.sandbox_id, "sandbox is set up");
        *done = Some(request);
        Ok(())
    }

    fn write_etc(&self, request: &SetupSandboxRequest) -> Result<(), Error> {
        let resolv = request.dns.as_ref().map(resolv_conf);
        let files = [
            ("hosts", Some(hosts(request))),
            ("hostname", Some(format!("{}\n", request.hostname))),
            ("resolv.conf", resolv),
        ];
        for (name, content) in files {
            // Written in place: containers have these very files mounted.
            if let Some(content) = content {
                std::fs::write(self.layout.etc(name), content)
                    .map_err(Error::io(format!("write /etc/{name}")))?;
            }
        }
        Ok(())
    }
}

/// The containers of a sandbox share their IPC namespace, and so POSIX shared memory.
fn mount_shm(target: &Path, bytes: u64) -> Result<(), Error> {
    let bytes = if bytes == 0 { SHM_BYTES } else { bytes };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let options = format!("mode=1777,size={bytes}");
    mounts::unmount(target).map_err(RootFsError::from)?;
    mounts::mount_at("tmpfs", Path::new("shm"), target, flags, &options)
        .map_err(RootFsError::from)?;
    Ok(())
}

fn check(request: &SetupSandboxRequest, done: Option<&SetupSandboxRequest>) -> Result<(), Error> {
    if done.is_some_and(|done| done.scratch_disk != request.scratch_disk) {
        return Err(Error::State("the scratch disk cannot be changed".into()));
    }
    if done.is_some_and(|done| done.shm_bytes != request.shm_bytes) {
        return Err(Error::State(
            "the size of /dev/shm cannot be changed".into(),
        ));
    }
    let hostname = &request.hostname;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if hostname.len() > MAX_HOSTNAME || !hostname.bytes().all(allowed) {
        return Err(Error::Invalid(format!("{hostname:?} is not a hostname")));
    }
    let dns = request.dns.iter();
    let lines = dns
        .flat_map(|dns| dns.servers.iter().chain(&dns.searches).chain(&dns.options))
        .chain(&request.hosts);
    match lines.into_iter().find(|line| line.contains(['\n', '\0'])) {
        Some(line) => Err(Error::Invalid(format!("{line:?} has more than one line"))),
        None => Ok(()),
    }
}

fn set_hostname(hostname: &str) -> Result<(), Error> {
    if hostname.is_empty() {
        return Ok(());
    }
    nix::unistd::sethostname(hostname).map_err(Error::io(format!("set hostname {hostname:?}")))
}

/// The sandbox's own names, then what the host adds.
fn hosts(request: &SetupSandboxRequest) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
         fe00::2\tip6-allrouters\n",
    );
    let addresses = request.interfaces.iter().flat_map(|i| &i.addresses);
    if !request.hostname.is_empty() {
        for address in addresses {
            text.push_str(&format!("{}\t{}\n", address.ip, request.hostname));
        }
    }
    for line in &request.hosts {
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn resolv_conf(dns: &Dns) -> String {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

/// Sets a kernel parameter, written with dots or slashes as sysctl(8) takes it.
fn set_sysctl(name: &str, value: &str) -> Result<(), Error> {
    let path = match name.contains('/') {
        true => name.to_owned(),
        false => name.replace('.', "/"),
    };
    if !crate::resolve::is_inside(&path) {
        return Err(Error::Invalid(format!(
            "{name:?} is not a kernel parameter"
        )));
    }
    std::fs::write(Path::new("/proc/sys").join(path), value)
        .map_err(Error::io(format!("set {name} to {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_agent_protocol::v1::{Address, Interface};

    fn request() -> SetupSandboxRequest {
        SetupSandboxRequest {
            hostname: "web".into(),
            interfaces: vec![Interface {
                addresses: vec![Address {
                    ip: "10.1.2.3".into(),
                    prefix_length: 24,
                }],
                ..Default::default()
            }],
            hosts: vec!["10.9.9.9 other".into()],
            ..Default::default()
        }
    }

    #[test]
    fn hosts_file_names_the_sandbox_and_what_the_host_adds() {
        let text = hosts(&request());
        assert!(text.contains("\n10.1.2.3\tweb\n") && text.ends_with("\n10.9.9.9 other\n"));
    }

    #[test]
    fn resolv_conf_has_all_parts() {
        let text = resolv_conf(&Dns {
            servers: vec!["10.0.0.10".into(), "10.0.0.11".into()],
            searches: vec!["a.svc".into(), "svc".into()],
            options: vec!["ndots:5".into()],
        });
        let expected =
            "search a.svc svc\nnameserver 10.0.0.10\nnameserver 10.0.0.11\noptions ndots:5\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn bad_input_is_refused() {
        let refused = |change: fn(&mut SetupSandboxRequest)| {
            let mut request = request();
            change(&mut request);
            check(&request, None).is_err()
        };
        assert!(refused(|r| r.hostname = "a b".into()));
        assert!(refused(|r| r.hosts = vec!["a\nb".into()]));
        assert!(!refused(|_| {}));
        assert!(set_sysctl("../../etc/passwd", "x").is_err());
        let mut other = request();
        other.scratch_disk = "scratch".into();
        assert!(check(&other, Some(&request())).is_err());
    }
}
