//! Drives the program as its users do: boots nodes on this machine and runs commands.
//!
//! Every test boots nodes of its own; the functions that it calls name what must hold.

#![allow(clippy::unwrap_used, reason = "a failed helper is a failed test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;

/// How long a condition inside a busy node may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node that is taken down, and forgotten, at the end of its test.
struct Node {
    name: String,
}

impl Node {
    fn new(purpose: &str) -> Self {
        Self {
            name: format!("host-{purpose}-{}", std::process::id()),
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hull-testnode"));
        command
            .args(["--name", &self.name])
            .args(words)
            .stdin(Stdio::null());
        command
    }

    fn up(&self, words: &[&str]) -> Output {
        self.command(&[&["up", "--memory", "1024", "--isolated"], words].concat())
            .output()
            .unwrap()
    }

    /// Runs a shell command inside, which must succeed, and returns what it printed.
    fn sh(&self, script: &str) -> String {
        let output = self
            .command(&["run", "--", "sh", "-ec", script])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{script}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    fn directory(&self) -> PathBuf {
        hull_testnode::cache::directory()
            .unwrap()
            .join("testnode")
            .join(&self.name)
    }

    fn qemu_pid(&self) -> Option<i32> {
        let node = hull_testnode::node::Node::new(&self.name).unwrap();
        node.running().unwrap().map(|state| state.process.pid)
    }

    /// QEMU processes of this node, by their command line.
    fn qemu_processes(&self) -> usize {
        let name = format!("hull-testnode-{}\0", self.name);
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        entries
            .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
            .filter(|line| line.starts_with(b"qemu") && text(line).contains(&name))
            .count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
        let _ = fs::remove_dir_all(self.directory());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn assert_ok(output: &Output) {
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[test]
fn host_node_runs_commands() {
    let node = Node::new("run");
    let port = free_port();
    let started = Instant::now();
    assert_ok(&node.up(&["--forward", &format!("{port}:7777")]));
    println!("up and answering after {:?}", started.elapsed());
    // Boots beside what follows.
    let second = Node::new("second");
    let up = ["up", "--memory", "1024", "--isolated"];
    let booting = second.command(&up).stdout(Stdio::null()).spawn().unwrap();
    streams_and_exit_code_come_back(&node);
    input_and_environment_go_in(&node);
    a_signal_to_the_caller_reaches_the_command(&node);
    a_dead_caller_takes_the_command_with_it(&node);
    background_processes_outlive_their_command(&node);
    a_terminal_is_one(&node);
    a_shell_has_the_callers_terminal(&node);
    a_command_that_is_not_there_is_named(&node);
    the_node_is_a_kvm_machine(&node);
    the_host_is_read_only_but_for_the_share(&node);
    rebuilt_programs_are_seen(&node);
    a_forwarded_port_reaches_the_node(&node, port);
    two_nodes_are_two_machines_at_the_same_time(&node, &second, booting);
}

fn streams_and_exit_code_come_back(node: &Node) {
    let output = node
        .command(&["run", "--", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .output()
        .unwrap();
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout).as_str(),
            text(&output.stderr).as_str()
        ),
        (Some(7), "out\n", "err\n")
    );
    let output = node
        .command(&["run", "--", "sh", "-c", "kill -9 $$"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(137));
    // More than every buffer on the way, and not a byte lost.
    let output = node
        .command(&["run", "--", "head", "-c", "20000000", "/dev/zero"])
        .output()
        .unwrap();
    assert_eq!(output.stdout.len(), 20_000_000);
}

fn input_and_environment_go_in(node: &Node) {
    let mut command = node.command(&["run", "--env", "GREETING=a b", "--cwd", "/usr", "--"]);
    command.args([
        "sh",
        "-c",
        "echo $GREETING $HULL_TIMEOUT_SCALE $SECRET; pwd; wc -c",
    ]);
    command.env("SECRET", "x").env_remove("HULL_TIMEOUT_SCALE");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Larger than the window of unread input.
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&vec![b'x'; 3_000_000])
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout), "a b 10\n/usr\n3000000\n");
}

/// Starts a command inside and waits for its first line.
fn start(node: &Node, script: &str) -> (Child, String) {
    let mut command = node.command(&["run", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut line)
        .unwrap();
    (child, line.trim().to_owned())
}

fn a_signal_to_the_caller_reaches_the_command(node: &Node) {
    let script = "trap 'exit 33' TERM; echo ready; while :; do sleep 0.1; done";
    let (mut child, line) = start(node, script);
    assert_eq!(line, "ready");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(33));
}

fn a_dead_caller_takes_the_command_with_it(node: &Node) {
    // A grandchild in a session of its own is the command's, too.
    let (mut child, pid) = start(node, "setsid sleep 1000 & echo $!; wait");
    node.sh(&format!("test -d /proc/{pid}"));
    child.kill().unwrap();
    child.wait().unwrap();
    eventually("the command is killed", || {
        node.sh(&format!("ls /proc/{pid} 2>&1 || true"))
            .contains("No such")
    });
}

fn background_processes_outlive_their_command(node: &Node) {
    let pid = node.sh("sleep 1000 </dev/null >/dev/null 2>&1 & echo $!");
    node.sh(&format!("kill {}", pid.trim()));
}

fn a_terminal_is_one(node: &Node) {
    let output = node
        .command(&["run", "-t", "--", "sh", "-c", "tty; stty size"])
        .output()
        .unwrap();
    assert_eq!(text(&output.stdout), "/dev/pts/0\r\n24 80\r\n");
}

/// `shell` between the two ends of a terminal: its size, raw while the shell runs, as it was
/// after that; what is typed goes in, what is printed comes out, and so does the exit code.
fn a_shell_has_the_callers_terminal(node: &Node) {
    let size = Winsize {
        ws_row: 33,
        ws_col: 111,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = openpty(Some(&size), None).unwrap();
    let echoes = |pty: &OpenptyResult| {
        let flags = tcgetattr(&pty.slave).unwrap().local_flags;
        flags.contains(LocalFlags::ECHO | LocalFlags::ICANON)
    };
    assert!(echoes(&pty));
    let end = || Stdio::from(pty.slave.try_clone().unwrap());
    let mut command = node.command(&["shell"]);
    command.stdin(end()).stdout(end()).stderr(end());
    let mut shell = command.spawn().unwrap();
    // Its own copies of the terminal's end would keep what we read from ending.
    drop(command);
    let mut keyboard = fs::File::from(pty.master.try_clone().unwrap());
    let mut screen = fs::File::from(pty.master.try_clone().unwrap());
    let mut shown = [0; 1];
    // The prompt.
    screen.read_exact(&mut shown).unwrap();
    eventually("the terminal is raw", || !echoes(&pty));
    keyboard
        .write_all(b"echo in $(hostname): $(tty) $(stty size); exit 6\r")
        .unwrap();
    assert_eq!(shell.wait().unwrap().code(), Some(6));
    assert!(echoes(&pty));
    drop(pty.slave);
    // Reading ends by an error once nobody has the other end.
    let mut shown = Vec::new();
    let _ = screen.read_to_end(&mut shown);
    let line = format!("in {}: /dev/pts/0 33 111\r\n", node.name);
    assert!(text(&shown).contains(&line), "{}", text(&shown));
}

fn a_command_that_is_not_there_is_named(node: &Node) {
    let output = node
        .command(&["run", "--", "/no/such/program"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("/no/such/program"),
        "{}",
        text(&output.stderr)
    );
    let output = node
        .command(&["run", "--cwd", "/no/such/place", "--", "true"])
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("/no/such/place"),
        "{}",
        text(&output.stderr)
    );
}

fn the_node_is_a_kvm_machine(node: &Node) {
    let place = node.command(&["run", "--", env!("CARGO_BIN_EXE_hull-testnode"), "where"]);
    let place = { place }.output().unwrap();
    assert!(
        text(&place.stdout).starts_with("hardware: "),
        "{}",
        text(&place.stdout)
    );
    for controller in ["cpu", "cpuset", "io", "memory", "pids"] {
        node.sh(&format!(
            "grep -w {controller} /sys/fs/cgroup/cgroup.subtree_control"
        ));
    }
    node.sh("for device in kvm net/tun vhost-net vhost-vsock fuse loop-control vfio/vfio; do test -c /dev/$device; done");
    let cpus = node.sh("grep Cpus_allowed_list /proc/self/status");
    assert_eq!(cpus.split_whitespace().last(), Some("1-2"), "{cpus}");
    node.sh("modprobe nf_tables && nft list ruleset && tc qdisc add dev lo clsact");
    node.sh("dd if=/dev/zero of=/var/lib/hull/x bs=4096 count=16 oflag=direct conv=fsync 2>/dev/null; rm /var/lib/hull/x");
    assert_eq!(node.sh("hostname").trim(), node.name);
}

fn the_host_is_read_only_but_for_the_share(node: &Node) {
    let mark = format!("/var/tmp/{}", node.name);
    node.sh(&format!("echo inside > {mark}; test -f {mark}"));
    assert!(!Path::new(&mark).exists());
    node.sh("echo result > /run/hull-testnode/share/out");
    assert_eq!(
        fs::read_to_string(node.directory().join("share/out")).unwrap(),
        "result\n"
    );
    // A live directory is the host's very own: it must refuse to be written.
    let tests = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let output = node
        .command(&["run", "--", "touch", &format!("{tests}/written")])
        .output()
        .unwrap();
    assert!(
        text(&output.stderr).contains("Read-only"),
        "{}",
        text(&output.stderr)
    );
}

/// A program in a target directory, replaced as a linker does and rewritten in place,
/// while an earlier build of it runs inside.
fn rebuilt_programs_are_seen(node: &Node) {
    let target = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(target.path().join("CACHEDIR.TAG"), "").unwrap();
    let program = target.path().join("program");
    let build = |answer: &str| {
        let fresh = target.path().join("fresh");
        let script = format!("#!/bin/sh\necho {answer}\n[ -z \"$1\" ] || exec sleep 1000\n");
        fs::write(&fresh, script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&fresh, mode).unwrap();
        fresh
    };
    let run = || {
        let output = node
            .command(&["run", "--", program.to_str().unwrap()])
            .output()
            .unwrap();
        assert_ok(&output);
        text(&output.stdout)
    };
    fs::rename(build("one"), &program).unwrap();
    assert_eq!(run(), "one\n");
    let (mut busy, line) = start(node, &format!("{} stay", program.display()));
    assert_eq!(line, "one");
    fs::rename(build("two"), &program).unwrap();
    assert_eq!(run(), "two\n");
    fs::copy(build("three and more"), &program).unwrap();
    assert_eq!(run(), "three and more\n");
    busy.kill().unwrap();
    busy.wait().unwrap();
}

fn a_forwarded_port_reaches_the_node(node: &Node, port: u16) {
    let script = "echo ready; echo hello from inside | busybox nc -l -p 7777";
    let (mut server, _) = start(node, script);
    let mut answer = String::new();
    eventually("the forwarded port answers", || {
        answer.clear();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .and_then(|mut stream| stream.read_to_string(&mut answer))
            .is_ok_and(|_| !answer.is_empty())
    });
    assert_eq!(answer, "hello from inside\n");
    server.kill().unwrap();
    server.wait().unwrap();
}

fn two_nodes_are_two_machines_at_the_same_time(first: &Node, second: &Node, mut up: Child) {
    assert!(up.wait().unwrap().success());
    let script =
        "touch /tmp/mark-$(hostname); cat /proc/sys/kernel/random/boot_id; exec sleep 1000";
    let nodes = [first, second];
    let mut running = nodes.map(|node| start(node, script));
    assert_ne!(running[0].1, running[1].1, "two boots");
    for node in nodes {
        assert_eq!(node.qemu_processes(), 1);
        let marks = node.sh("cd /tmp; echo mark-*");
        assert_eq!(marks.trim(), format!("mark-{}", node.name));
    }
    let status = first.command(&["status"]).output().unwrap();
    for (node, (command, _)) in nodes.iter().zip(&mut running) {
        let up = format!("{}\tup\t", node.name);
        assert!(
            text(&status.stdout).contains(&up),
            "{}",
            text(&status.stdout)
        );
        assert!(command.try_wait().unwrap().is_none(), "both run still");
        command.kill().unwrap();
        command.wait().unwrap();
    }
    assert_ok(&second.command(&["down"]).output().unwrap());
    assert_eq!(
        first.sh("echo the other is unharmed"),
        "the other is unharmed\n"
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn host_node_life_leaks_nothing() {
    let node = Node::new("life");
    a_boot_that_fails_says_why_and_leaves_no_process(&node);
    an_interrupted_boot_leaves_no_process(&node);
    concurrent_ups_start_one_machine(&node);
    other_options_are_refused_while_it_is_up(&node);
    a_killed_machine_is_noticed_and_replaced(&node);
    assert_ok(&node.command(&["down"]).output().unwrap());
    assert_eq!((node.qemu_pid(), node.qemu_processes()), (None, 0));
    assert!(!node.directory().join("disk.img").exists());
    // Taking down what is not up is no error.
    assert_ok(&node.command(&["down"]).output().unwrap());
}

fn a_boot_that_fails_says_why_and_leaves_no_process(node: &Node) {
    let output = node.up(&["--kernel-arg", "hull_exe=/no/such/program"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("QEMU ended;"),
        "{}",
        text(&output.stderr)
    );
    assert!(
        text(&output.stderr).contains("no program /no/such/program"),
        "{}",
        text(&output.stderr)
    );
    let output = node.up(&["--device", "no-such-device"]);
    assert!(
        text(&output.stderr).contains("no-such-device"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(node.qemu_processes(), 0);
}

fn an_interrupted_boot_leaves_no_process(node: &Node) {
    let mut up = node
        .command(&["up", "--memory", "1024", "--isolated"])
        .spawn()
        .unwrap();
    eventually("QEMU starts", || node.qemu_pid().is_some());
    kill(Pid::from_raw(up.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(up.wait().unwrap().code(), Some(130));
    assert_eq!(node.qemu_processes(), 0);
}

fn concurrent_ups_start_one_machine(node: &Node) {
    let start = || {
        let mut command = node.command(&["up", "--memory", "1024", "--isolated"]);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (first, second) = (start(), start());
    let (first, second) = (
        first.wait_with_output().unwrap(),
        second.wait_with_output().unwrap(),
    );
    assert_ok(&first);
    assert_ok(&second);
    assert_eq!(first.stdout, second.stdout);
    assert_eq!(node.qemu_processes(), 1);
    let again = node.up(&[]);
    assert_eq!(again.stdout, first.stdout);
}

fn other_options_are_refused_while_it_is_up(node: &Node) {
    let output = node.up(&["--forward", "9:9"]);
    assert_eq!(output.status.code(), Some(125));
    assert!(
        text(&output.stderr).contains("forwards"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(node.qemu_processes(), 1);
}

fn a_killed_machine_is_noticed_and_replaced(node: &Node) {
    let (mut busy, _) = start(node, "echo ready; sleep 1000");
    let before = node.qemu_pid().unwrap();
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    assert_eq!(busy.wait().unwrap().code(), Some(125));
    eventually("the dead machine is noticed", || node.qemu_pid().is_none());
    // `run` boots what is not up.
    assert_eq!(node.sh("echo back"), "back\n");
    assert_ne!(node.qemu_pid().unwrap(), before);
}

#[test]
fn host_node_offers_devices_for_vfio() {
    let node = Node::new("vfio");
    let output = node.up(&[
        "--device",
        "intel-iommu,intremap=on,caching-mode=on",
        "--device",
        "pcie-root-port,id=rp1,slot=1",
        "--device",
        "pci-testdev,membar=8G,bus=rp1",
        "--kernel-arg",
        "intel_iommu=on",
        "--kernel-arg",
        "iommu=pt",
    ]);
    assert_ok(&output);
    let device = node
        .sh("grep -lx 0x0005 /sys/bus/pci/devices/*/device")
        .trim()
        .to_owned();
    let device = Path::new(&device)
        .parent()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(node.sh(&format!("cat {device}/vendor")).trim(), "0x1b36");
    // Alone in its group, with a prefetchable 64-bit BAR of 8 GiB.
    assert_eq!(
        node.sh(&format!("ls {device}/iommu_group/devices | wc -l"))
            .trim(),
        "1"
    );
    let bars = node.sh(&format!("cat {device}/resource"));
    let is_8_gib = |line: &str| {
        let mut fields = line
            .split(' ')
            .map(|field| u64::from_str_radix(field.trim_start_matches("0x"), 16).unwrap());
        let (start, end) = (fields.next().unwrap(), fields.next().unwrap());
        end.wrapping_sub(start) == (8 << 30) - 1
    };
    assert!(bars.lines().any(is_8_gib), "{bars}");
    let group = node.sh(&format!(
        "echo vfio-pci > {device}/driver_override; basename {device} > /sys/bus/pci/drivers_probe; \
         basename $(readlink {device}/iommu_group)"
    ));
    node.sh(&format!("test -c /dev/vfio/{}", group.trim()));
}

#[test]
fn host_where_and_exec_agree() {
    let node = Node::new("where");
    let place = node.command(&["where"]).output().unwrap();
    let hardware = text(&place.stdout).starts_with("hardware: ");
    assert!(hardware || text(&place.stdout).starts_with("testnode: "));
    if !hardware {
        assert_ok(&node.up(&[]));
    }
    let mut command = node.command(&["exec", "--", "sh", "-c", "echo $HULL_TIMEOUT_SCALE; exit 3"]);
    command.env_remove("HULL_TIMEOUT_SCALE");
    let quiet = command.env("HULL_TESTNODE_SAID", "1").output().unwrap();
    assert_eq!(text(&quiet.stderr), "", "the caller has said it");
    let output = command.env_remove("HULL_TESTNODE_SAID").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let (scale, says) = if hardware {
        ("1\n", "")
    } else {
        ("10\n", "running in node")
    };
    assert_eq!(text(&output.stdout), scale);
    assert!(
        text(&output.stderr).contains(says),
        "{}",
        text(&output.stderr)
    );
}
