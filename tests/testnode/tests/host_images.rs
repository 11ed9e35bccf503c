//! Guest files and sample images, through the program and the scripts of `images/`.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use hull_testnode::cache::sha256_hex;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hull-testnode");

fn guest(cache: &Path, agent: &Path, kernel: &Path) -> Output {
    Command::new(PROGRAM)
        .args(["guest", "--agent"])
        .arg(agent)
        .arg("--kernel")
        .arg(kernel)
        .env("HULL_CACHE_DIR", cache)
        .output()
        .unwrap()
}

#[test]
fn host_initramfs_is_packed_once_per_agent_and_replaced_in_one_step() {
    let directory = tempfile::tempdir().unwrap();
    let cache = directory.path().join("cache");
    let kernel = directory.path().join("vmlinux");
    fs::write(&kernel, "kernel").unwrap();
    let agent = directory.path().join("agent");
    fs::copy("/bin/busybox", &agent).unwrap();
    let link = cache.join("guest/initramfs.cpio");

    assert!(guest(&cache, &agent, &kernel).status.success());
    assert_eq!(fs::read_link(cache.join("guest/vmlinux")).unwrap(), kernel);
    let first = link.canonicalize().unwrap();
    let packed = fs::metadata(&first).unwrap().modified().unwrap();
    assert!(guest(&cache, &agent, &kernel).status.success());
    assert_eq!(link.canonicalize().unwrap(), first);
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), packed);

    let mut changed = fs::read(&agent).unwrap();
    changed.push(0);
    fs::write(&agent, changed).unwrap();
    assert!(guest(&cache, &agent, &kernel).status.success());
    assert_ne!(link.canonicalize().unwrap(), first);
    assert!(!first.exists());

    // A program that cannot run in the guest is refused, and what was there stays.
    let now = link.canonicalize().unwrap();
    let output = guest(&cache, Path::new(PROGRAM), &kernel);
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("statically linked"));
    assert_eq!(link.canonicalize().unwrap(), now);
}

#[test]
fn host_cloud_kernel_is_an_elf_image_with_a_pvh_entry() {
    let output = Command::new(PROGRAM).arg("cloud-kernel").output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let path = String::from_utf8(output.stdout).unwrap();
    let kernel = fs::read(path.trim()).unwrap();
    assert!(kernel.starts_with(b"\x7fELF\x02\x01"));
    // XEN_ELFNOTE_PHYS32_ENTRY: name size 4, any description size, type 18, "Xen".
    let is_note = |bytes: &[u8]| {
        bytes.starts_with(&4u32.to_le_bytes())
            && bytes
                .get(8..16)
                .is_some_and(|rest| rest == b"\x12\0\0\0Xen\0")
    };
    assert!(kernel.windows(16).any(is_note));
}

fn kernel_build(arguments: &[&Path]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/guest-kernel/build.sh");
    Command::new(script).args(arguments).output().unwrap()
}

/// All of the build but compiling: Kconfig makes a configuration of the fragment, in which
/// every option of the fragment holds. (Once per fragment: it is cached, as the kernel is.)
#[test]
fn host_guest_kernels_configuration_has_every_option_of_its_fragment() {
    let output = kernel_build(&[Path::new("--config")]);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    let path = String::from_utf8(output.stdout).unwrap();
    let configuration = fs::read_to_string(path.trim()).unwrap();
    let is_set = |option: &str| {
        let set = format!("{option}=");
        configuration.lines().any(|line| line.starts_with(&set))
    };
    let fragment =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/guest-kernel/config.fragment");
    let fragment = fs::read_to_string(fragment).unwrap();
    let mut options = 0;
    for line in fragment.lines() {
        if let Some(rest) = line.strip_prefix("# CONFIG_") {
            let option = rest.strip_suffix(" is not set").unwrap();
            assert!(!is_set(&format!("CONFIG_{option}")), "{line}");
        } else if line.starts_with("CONFIG_") {
            assert!(configuration.lines().any(|other| other == line), "{line}");
        } else {
            continue;
        }
        options += 1;
    }
    assert!(options > 200, "{options}");

    // What the build itself says of one that Kconfig dropped, and of one that it turned on.
    let directory = tempfile::tempdir().unwrap();
    let changed = directory.path().join("config");
    let text = configuration.replace("CONFIG_PVH=y\n", "") + "CONFIG_MODULES=y\n";
    fs::write(&changed, text).unwrap();
    let output = kernel_build(&[Path::new("--check"), &changed]);
    assert!(!output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: not in the guest kernel's configuration: CONFIG_MODULES (is on) CONFIG_PVH=y\n"
    );
    assert!(
        kernel_build(&[Path::new("--check"), Path::new(path.trim())])
            .status
            .success()
    );
}

/// docker-registry on a port of its own, stopped at the end of the test.
struct Registry {
    port: u16,
}

impl Registry {
    fn script(port: u16, verb: &str) -> Output {
        let images =
            Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../images");
        let programs = PathBuf::from(PROGRAM)
            .parent()
            .unwrap()
            .display()
            .to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap());
        Command::new(images.join("registry.sh"))
            .arg(verb)
            .env("PATH", path)
            .env("HULL_REGISTRY_PORT", port.to_string())
            .output()
            .unwrap()
    }

    fn start() -> Self {
        let port = {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            listener.local_addr().unwrap().port()
        };
        for verb in ["fill", "start", "status", "start"] {
            let output = Self::script(port, verb);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "registry.sh {verb}: {stderr}");
        }
        Self { port }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nAccept: */*\r\nAccept: application/vnd.oci.image.manifest.v1+json\r\nAccept: application/vnd.oci.image.index.v1+json\r\nAccept: application/vnd.docker.distribution.manifest.v2+json\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .unwrap();
        let (head, body) = answer.split_at(end + 4);
        let head = String::from_utf8_lossy(head);
        assert!(head.contains(" 200 OK\r\n"), "{path}: {head}");
        body.to_vec()
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&self.get(path)).unwrap()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        Self::script(self.port, "stop");
    }
}

#[test]
fn host_registry_serves_every_image_with_true_digests_but_for_the_wrong_one() {
    let registry = Registry::start();
    let catalog = registry.json("/v2/_catalog?n=100");
    let names: BTreeSet<_> = catalog["repositories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    for name in [
        "library/busybox",
        "library/nginx",
        "test/layers",
        "test/zstd",
        "test/user",
    ] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let mut wrong = Vec::new();
    for name in &names {
        let mut manifest = registry.json(&format!("/v2/{name}/manifests/latest"));
        if let Some(entries) = manifest["manifests"].as_array() {
            let entry = entries
                .iter()
                .find(|entry| entry["platform"]["architecture"] == "amd64");
            let digest = entry.unwrap()["digest"].as_str().unwrap().to_owned();
            manifest = registry.json(&format!("/v2/{name}/manifests/{digest}"));
        }
        let layers = manifest["layers"].as_array().unwrap().iter();
        for blob in layers.chain([&manifest["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let bytes = registry.get(&format!("/v2/{name}/blobs/{digest}"));
            assert_eq!(Some(bytes.len() as u64), blob["size"].as_u64(), "{name}");
            if format!("sha256:{}", sha256_hex(&bytes)) != digest {
                wrong.push(*name);
            }
        }
    }
    assert_eq!(wrong, ["test/wrong-digest"]);
}

#[test]
fn host_registry_stops_and_says_when_its_port_is_taken() {
    let registry = Registry::start();
    let port = registry.port;
    drop(registry);
    assert!(!Registry::script(port, "status").status.success());

    // Something else that answers like a registry.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let script = std::thread::spawn(move || Registry::script(port, "start"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !script.is_finished() {
        assert!(Instant::now() < deadline, "registry.sh does not give up");
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = script.join().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("something else answers"));
}
