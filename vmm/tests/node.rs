//! Whole VMs with a real kernel on real KVM. They run in the testnode.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used)]

mod memory;
mod support;
mod vfio;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use hull_vmm_client::control::{Answer, Request};
use hull_vmm_client::exit::ExitReason;
use hull_vmm_client::rate::{Rate, RateLimits};
use hull_vmm_client::scaled;
use support::{Machine, Options, disk_file, give_to_jail};

const SLOW_READER_PAUSE: Duration = Duration::from_millis(1);

fn options(scenario: &'static str) -> Options {
    Options {
        scenario,
        ..Options::default()
    }
}

/// The number that the guest printed under a name.
fn marked(console: &str, name: &str) -> u64 {
    let mark = format!("MARK {name} ");
    let value = console.lines().find_map(|line| line.strip_prefix(&mark));
    value
        .unwrap_or_else(|| panic!("no {mark:?} in\n{console}"))
        .trim()
        .parse()
        .unwrap()
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_kernel_boots_and_sees_its_devices_then_powers_off() {
    let directory = std::env::temp_dir();
    let disks = vec![
        ("root", Some(disk_file(&directory, &[0; 8192])), true),
        ("slot-1", None, true),
        ("scratch", Some(disk_file(&directory, &[0; 4096])), false),
    ];
    let disks_with_vectors = disks.len() as u64;
    let mut machine = Machine::start(Options {
        vcpus: 2,
        disks,
        ..options("devices")
    });
    let (record, status) = machine.end();
    let console = machine.console();
    for line in [
        "MARK processors 2",
        "MARK vda root 16 1",
        "MARK vdb slot-1 0 1",
        "MARK vdc scratch 8 0",
        "MARK rng virtio_rng",
    ] {
        assert!(console.contains(line), "no {line:?} in\n{console}");
    }
    // Every device has a vector per queue and one for changes of its configuration.
    let vectors = marked(&console, "vectors");
    assert!(vectors >= disks_with_vectors * 2, "{vectors}: {console}");
    assert_eq!(record.reason, ExitReason::GuestShutdown, "{record:?}");
    assert_eq!(status.code(), Some(0));
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_reboot_ends_the_vm_as_a_shutdown() {
    let mut machine = Machine::start(options("reboot"));
    let (record, status) = machine.end();
    assert_eq!(record.reason, ExitReason::GuestShutdown, "{record:?}");
    assert_eq!(status.code(), Some(0));
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_kernel_panic_is_reported_as_such() {
    let mut machine = Machine::start(options("panic"));
    let (record, status) = machine.end();
    assert_eq!(record.reason, ExitReason::GuestPanic, "{record:?}");
    assert_eq!(status.code(), Some(10));
    assert!(
        machine.console().contains("Kernel panic"),
        "{}",
        machine.console()
    );
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_stop_over_the_control_socket_is_quick_even_if_the_guest_spins() {
    let mut machine = Machine::start(Options {
        vcpus: 2,
        ..options("spin")
    });
    machine.expect("MARK waiting");
    let state = machine.control.state().await.unwrap();
    assert_eq!(
        (state.id.as_str(), state.pid, state.running),
        ("node-test", machine.child.id(), true)
    );
    assert!(
        machine
            .control
            .console(100_000)
            .await
            .unwrap()
            .contains("MARK waiting")
    );
    let metrics = machine.control.metrics().await.unwrap();
    assert!(metrics.contains("hull_vmm_uptime_seconds "), "{metrics}");
    assert!(
        metrics.contains("hull_vmm_exits_total{kind=\"mmio\"} "),
        "{metrics}"
    );
    let started = Instant::now();
    machine.control.stop().await.unwrap();
    let (record, status) = machine.end();
    assert!(
        started.elapsed() < scaled(Duration::from_millis(500)),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(
        (record.reason, status.code()),
        (ExitReason::Stopped, Some(0))
    );
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_sigterm_stops_and_sigkill_is_told_apart() {
    for (signal, reason) in [
        (libc::SIGTERM, ExitReason::Stopped),
        (libc::SIGKILL, ExitReason::Killed),
    ] {
        let mut machine = Machine::start(options("wait"));
        machine.expect("MARK waiting");
        // SAFETY: signals the own child, which is not reaped yet.
        unsafe { libc::kill(machine.child.id() as i32, signal) };
        let (record, status) = machine.end();
        assert_eq!(record.reason, reason, "{record:?}");
        if signal == libc::SIGKILL {
            assert_eq!(status.signal(), Some(libc::SIGKILL));
        } else {
            assert_eq!(status.code(), Some(0));
        }
    }
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_a_file_that_is_no_kernel_is_a_vmm_error_that_names_it() {
    let kernel = Some(disk_file(&std::env::temp_dir(), b"not a kernel"));
    let mut machine = Machine::start(Options {
        kernel,
        ..options("wait")
    });
    let (record, status) = machine.end();
    assert_eq!(
        (record.reason, status.code()),
        (ExitReason::VmmError, Some(1))
    );
    assert!(record.message.contains("not an ELF kernel"), "{record:?}");
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_disk_is_attached_written_read_and_detached_while_the_guest_runs() {
    let directory = std::env::temp_dir();
    let scratch = disk_file(&directory, &[0; 1 << 20]);
    let reader = scratch.try_clone().unwrap();
    let mut machine = Machine::start(Options {
        disks: vec![("scratch", Some(scratch), false), ("slot-1", None, true)],
        ..options("attach")
    });
    machine.expect("MARK empty 0");
    let mut content = b"hello from the host\n".to_vec();
    content.resize(4096, 0);
    let image = disk_file(&directory, &content);
    let refused = machine
        .control
        .attach_disk("nothing", image.as_fd())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("no disk nothing"), "{refused}");
    let without = machine
        .control
        .call(
            &Request::AttachDisk {
                serial: "slot-1".into(),
            },
            None,
        )
        .await;
    assert!(
        without
            .unwrap_err()
            .to_string()
            .contains("without a descriptor")
    );
    machine
        .control
        .attach_disk("slot-1", image.as_fd())
        .await
        .unwrap();
    assert!(
        machine
            .control
            .attach_disk("slot-1", image.as_fd())
            .await
            .is_err()
    );
    assert_eq!(
        machine.control.state().await.unwrap().attached_disks,
        vec!["scratch", "slot-1"]
    );
    machine.expect("MARK size 8");
    machine.expect("MARK read hello from the host");
    machine.expect("MARK written");
    let mut bytes = [0; 20];
    std::os::unix::fs::FileExt::read_exact_at(&reader, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"written by the guest");
    machine.control.detach_disk("slot-1").await.unwrap();
    let metrics = machine.control.metrics().await.unwrap();
    assert!(
        metrics.contains("hull_vmm_block_requests_total{device=\"scratch\",kind=\"write\"}"),
        "{metrics}"
    );
    let (record, _) = machine.end();
    assert!(
        machine.console().contains("MARK detached"),
        "{}",
        machine.console()
    );
    assert_eq!(record.reason, ExitReason::GuestShutdown);
}

fn pattern(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

/// Reads to the end in small pieces with pauses; gives the number of bytes.
fn read_slowly(stream: &mut UnixStream) -> u64 {
    let (mut total, mut buffer) = (0u64, vec![0; 16 << 10]);
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            return total;
        }
        for (index, byte) in buffer[..count].iter().enumerate() {
            assert_eq!(
                *byte,
                pattern(total + index as u64),
                "byte {}",
                total + index as u64
            );
        }
        total += count as u64;
        std::thread::sleep(SLOW_READER_PAUSE);
    }
}

fn connect(machine: &Machine, port: u32) -> UnixStream {
    let mut stream = UnixStream::connect(machine.directory.join("v")).unwrap();
    stream
        .set_read_timeout(Some(scaled(Duration::from_secs(20))))
        .unwrap();
    stream
        .write_all(format!("CONNECT {port}\n").as_bytes())
        .unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        stream
            .read_exact(&mut byte)
            .unwrap_or_else(|error| panic!("port {port}: {error}"));
        line.push(byte[0]);
    }
    assert!(line.starts_with(b"OK "), "{line:?}");
    stream
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_vsock_carries_megabytes_both_ways_and_half_closes() {
    const BYTES: u64 = 10 << 20;
    let mut machine = Machine::start(options("vsock"));
    let listener = UnixListener::bind(machine.directory.join("v_5000")).unwrap();
    give_to_jail(&machine.directory.join("v_5000"));
    machine.expect("MARK listening");
    // The guest dialled: 12 MiB to a slow reader, then an answer through the half-closed
    // connection.
    let (mut dialled, _) = listener.accept().unwrap();
    let slow = std::thread::spawn(move || {
        let total = read_slowly(&mut dialled);
        write!(dialled, "{total}").unwrap();
    });
    // At the same time host programs dial the guest.
    let mut source = connect(&machine, 1025);
    source.write_all(&BYTES.to_le_bytes()).unwrap();
    let reader = std::thread::spawn(move || read_slowly(&mut source));
    let mut sink = connect(&machine, 1024);
    let data: Vec<u8> = (0..BYTES).map(pattern).collect();
    sink.write_all(&data).unwrap();
    sink.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    sink.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, format!("{BYTES} good\n"));
    assert_eq!(reader.join().unwrap(), BYTES);
    slow.join().unwrap();
    machine.expect(&format!("MARK host says {}", 12 << 20));
    assert!(
        machine.console().contains("MARK refused ConnectionReset"),
        "{}",
        machine.console()
    );
    // A port where nobody listens.
    let mut refused = UnixStream::connect(machine.directory.join("v")).unwrap();
    refused.write_all(b"CONNECT 9\n").unwrap();
    refused
        .set_read_timeout(Some(scaled(Duration::from_secs(5))))
        .unwrap();
    assert_eq!(refused.read(&mut [0; 8]).unwrap(), 0);
    assert!(matches!(
        machine.control.call_blocking(&Request::Stop, None),
        Ok(Answer::Ok)
    ));
    assert_eq!(machine.end().0.reason, ExitReason::Stopped);
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_the_vmm_is_locked_up() {
    let mut machine = Machine::start(options("wait"));
    machine.expect("MARK waiting");
    let proc = format!("/proc/{}", machine.child.id());
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
    for name in ["mnt", "net", "ipc", "uts"] {
        assert_ne!(
            fs::read_link(format!("{proc}/ns/{name}")).unwrap(),
            own(name),
            "{name}"
        );
    }
    for task in fs::read_dir(format!("{proc}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .trim()
                .to_owned()
        };
        assert_eq!(field("Uid:"), "64123\t64123\t64123\t64123");
        assert_eq!(field("Gid:"), "64123\t64123\t64123\t64123");
        assert_eq!(field("Groups:"), "");
        assert_eq!(field("Seccomp:"), "2");
        assert_eq!(field("NoNewPrivs:"), "1");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(field(set), "0000000000000000", "{set}");
        }
    }
    let mounts = fs::read_to_string(format!("{proc}/mountinfo")).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    let root: Vec<_> = fs::read_dir(format!("{proc}/root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(root.iter().any(|name| name == "v"), "{root:?}");
    assert!(!root.iter().any(|name| name == "etc"), "{root:?}");
}

/// A network namespace with a tap in it; both go away with the value.
struct Namespace(String);

impl Namespace {
    fn new() -> (Self, OwnedFd) {
        let name = format!("hull-vmm-{}", std::process::id());
        run(&["ip", "netns", "add", &name]);
        let namespace = Self(name.clone());
        let tap = std::thread::spawn(move || {
            enter(&name);
            open_tap()
        });
        let tap = tap.join().unwrap();
        namespace.run(&["ip", "addr", "add", "10.77.0.1/24", "dev", "tap0"]);
        namespace.run(&["ip", "link", "set", "tap0", "up", "mtu", "1400"]);
        (namespace, tap)
    }

    fn run(&self, command: &[&str]) -> String {
        let mut whole = vec!["ip", "netns", "exec", &self.0];
        whole.extend_from_slice(command);
        run(&whole)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn run(command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Moves the calling thread into a network namespace.
fn enter(name: &str) {
    let file = File::open(format!("/run/netns/{name}")).unwrap();
    // SAFETY: plain system call.
    let outcome = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
    assert_eq!(outcome, 0);
}

fn open_tap() -> OwnedFd {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let tap = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .unwrap();
    let mut request = [0u8; 40];
    request[..4].copy_from_slice(b"tap0");
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as u16;
    request[16..18].copy_from_slice(&flags.to_le_bytes());
    // SAFETY: TUNSETIFF reads and writes one ifreq of 40 bytes.
    let outcome = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(outcome, 0);
    tap.into()
}

#[test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
fn node_net_answers_ping_and_takes_a_stream_through_a_tap_in_a_namespace() {
    let (namespace, tap) = Namespace::new();
    let mut machine = Machine::start(Options {
        tap: Some(tap),
        ..options("net")
    });
    machine.expect("MARK up");
    machine.expect("MARK mtu 1400");
    let before = metric(&ctl(&machine, &["metrics"]), MMIO_EXITS);
    let answer = namespace.run(&["busybox", "ping", "-c", "3", "-W", "20", "10.77.0.2"]);
    assert!(answer.contains("3 packets received"), "{answer}");
    let data: Vec<u8> = (0..4u64 << 20).map(pattern).collect();
    let path = machine.directory.join("data");
    fs::write(&path, &data).unwrap();
    let sum = run(&["md5sum", path.to_str().unwrap()]);
    let name = namespace.0.clone();
    let sender = std::thread::spawn(move || {
        enter(&name);
        let mut stream = std::net::TcpStream::connect("10.77.0.2:7000").unwrap();
        stream.write_all(&data).unwrap();
    });
    sender.join().unwrap();
    machine.expect(&format!("MARK received {} {}", 4 << 20, &sum[..32]));
    // Acknowledgements and refilled buffers ring the doorbell without an exit to the VMM.
    let text = ctl(&machine, &["metrics"]);
    let exits = metric(&text, MMIO_EXITS) - before;
    let sent = metric(
        &text,
        "hull_vmm_net_frames_total{device=\"eth0\",direction=\"send\"}",
    );
    assert!(sent >= 20, "{sent} frames");
    assert!(exits * 4 < sent, "{exits} exits for {sent} frames");
}

/// Exits to the VMM for registers of devices.
const MMIO_EXITS: &str = "hull_vmm_exits_total{kind=\"mmio\"}";
/// Requests to the disk that is read.
const READS: &str = "hull_vmm_block_requests_total{device=\"scratch\",kind=\"read\"}";

/// The value of a metric without labels of interest, in the text of the control socket.
fn metric(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value
        .unwrap_or_else(|| panic!("no {name} in {text}"))
        .parse()
        .unwrap()
}

async fn until_metric(machine: &Machine, name: &str, enough: impl Fn(u64) -> bool) {
    let deadline = Instant::now() + scaled(Duration::from_secs(10));
    loop {
        let value = metric(&machine.control.metrics().await.unwrap(), name);
        if enough(value) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{name} is {value}: {}",
            machine.console()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_disk_is_limited_until_the_limit_is_lifted() {
    const MIB: u64 = 1 << 20;
    let rate = Rate {
        per_second: MIB / 4,
        burst: Some(MIB / 4),
    };
    let mut machine = Machine::start(Options {
        disks: vec![(
            "scratch",
            Some(disk_file(&std::env::temp_dir(), &vec![1; 8 << 20])),
            false,
        )],
        disk_limits: RateLimits {
            bytes: Some(rate),
            ..RateLimits::default()
        },
        ..options("limited")
    });
    machine.expect("MARK started");
    let started = Instant::now();
    let text = machine.control.metrics().await.unwrap();
    let before = (metric(&text, MMIO_EXITS), metric(&text, READS));
    let read = "hull_vmm_block_bytes_total{device=\"scratch\",direction=\"read\"}";
    until_metric(&machine, read, |bytes| bytes >= MIB).await;
    // A quarter of a MiB at once, and the last request may be larger than what was left.
    assert!(
        started.elapsed() > Duration::from_secs(1),
        "{:?}",
        started.elapsed()
    );
    let bytes = metric(&machine.control.metrics().await.unwrap(), read);
    let most = MIB + MIB / 4 * (started.elapsed().as_secs() + 2);
    assert!(bytes <= most, "{bytes} in {:?}", started.elapsed());
    let unknown = machine
        .control
        .limit_net("none", RateLimits::default(), RateLimits::default());
    assert!(
        unknown
            .await
            .unwrap_err()
            .to_string()
            .contains("no network none")
    );
    machine
        .control
        .limit_disk("scratch", RateLimits::default())
        .await
        .unwrap();
    machine.expect("MARK finished");
    // Doorbells are the kernel's (ioeventfd): a request costs no exit to the VMM. Interrupts
    // come, and there is no way for them but irqfd: the filter of the VMM's threads has no
    // other request that raises one.
    let text = machine.control.metrics().await.unwrap();
    let exits = metric(&text, MMIO_EXITS) - before.0;
    let reads = metric(&text, READS) - before.1;
    assert!(reads >= 32, "{reads} requests for 8 MiB");
    assert!(exits * 8 < reads, "{exits} exits for {reads} requests");
    let interrupts = marked(&machine.console(), "interrupts");
    assert!(interrupts * 8 >= reads, "{interrupts} for {reads} requests");
    machine.control.stop().await.unwrap();
    machine.end();
}

/// `hull-vmm ctl` on the socket of a machine.
fn ctl(machine: &Machine, words: &[&str]) -> String {
    let socket = machine.control.path().to_str().unwrap();
    let mut command = vec![env!("CARGO_BIN_EXE_hull-vmm"), "ctl", socket];
    command.extend_from_slice(words);
    run(&command)
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_paused_guest_stands_still_and_goes_on() {
    let mut machine = Machine::start(Options {
        vcpus: 2,
        ..options("ticks")
    });
    machine.expect("MARK tick 3");
    ctl(&machine, &["pause"]);
    assert!(!machine.control.state().await.unwrap().running);
    let console = ctl(&machine, &["console"]);
    let exits = "hull_vmm_exits_total{kind=\"port\"}";
    let before = metric(&ctl(&machine, &["metrics"]), exits);
    tokio::time::sleep(scaled(Duration::from_millis(100))).await;
    assert_eq!(metric(&ctl(&machine, &["metrics"]), exits), before);
    assert_eq!(ctl(&machine, &["console"]), console);
    let dump = ctl(&machine, &["dump"]);
    assert!(dump.contains("virtio \"vsock\" status 0x0f"), "{dump}");
    let [first, second, ..] = dump.lines().collect::<Vec<_>>()[..] else {
        panic!("{dump}");
    };
    assert!(first.starts_with("vCPU 0 "), "{dump}");
    // It has nothing to do.
    assert!(
        second.starts_with("vCPU 1 halted in the kernel at 0xf"),
        "{dump}"
    );
    assert!(dump.contains("BAR 0 of 0x8000 bytes at 0xc0"), "{dump}");
    ctl(&machine, &["resume"]);
    let ticks = machine.console().matches("MARK tick").count();
    machine.expect(&format!("MARK tick {}", ticks + 2));
    // To look at a guest that runs stops it for a moment only.
    assert!(ctl(&machine, &["dump"]).starts_with("vCPU 0 "));
    assert!(machine.control.state().await.unwrap().running);
    let ticks = machine.console().matches("MARK tick").count();
    machine.expect(&format!("MARK tick {}", ticks + 2));
    // The end comes to a paused VM too.
    machine.control.pause().await.unwrap();
    ctl(&machine, &["stop"]);
    assert_eq!(machine.end().0.reason, ExitReason::Stopped);
}

#[tokio::test]
#[ignore = "needs KVM: run in the testnode (make test does)"]
async fn node_a_network_is_given_its_tap_while_the_guest_runs() {
    let (namespace, tap) = Namespace::new();
    let mut machine = Machine::start(Options {
        net_without_tap: true,
        ..options("link")
    });
    machine.expect("MARK link 0");
    machine
        .control
        .attach_net("eth0", tap.as_fd())
        .await
        .unwrap();
    let again = machine.control.attach_net("eth0", tap.as_fd()).await;
    assert!(again.unwrap_err().to_string().contains("has a tap already"));
    machine.expect("MARK link 1");
    let answer = namespace.run(&["busybox", "ping", "-c", "1", "-W", "20", "10.77.0.2"]);
    assert!(answer.contains("1 packets received"), "{answer}");
    machine.control.detach_net("eth0").await.unwrap();
    machine.expect("MARK link down");
    machine.control.stop().await.unwrap();
    machine.end();
}
