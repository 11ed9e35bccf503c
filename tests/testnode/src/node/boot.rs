//! Starting QEMU and waiting for the guest agent.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Node, NodeError, PING_TIMEOUT, STOP_GRACE, State};
use crate::cache::{self, io_error};
use crate::initramfs;
use crate::kernel;
use crate::process::ProcessId;
use crate::protocol::{self, GuestConfig, READY_LINE};
use crate::qemu::{self, Options};

/// How long a node may take from QEMU's start to the agent's first answer.
pub(super) const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a node that boots.
const POLL: Duration = Duration::from_millis(50);
/// Starts tried when another program takes the agent's port in between.
const START_ATTEMPTS: u32 = 3;

impl Node {
    /// Prepares everything, starts QEMU, and waits for the agent. The lock is held.
    pub(super) fn boot(&self, options: &Options) -> Result<State, NodeError> {
        let kernel = kernel::prepare("linux-image-amd64", "testnode")?;
        let files = qemu::Files {
            initramfs: initramfs::prepare(&kernel)?,
            kernel: kernel.image.clone(),
            disk: self.directory.join("disk.img"),
            share: self.share(),
            console: self.console(),
            program: own_program()?,
            config: self.directory.join("config.json"),
        };
        for path in [&files.program, &files.config] {
            if path.to_string_lossy().contains(char::is_whitespace) {
                return Err(NodeError::Path(path.clone()));
            }
        }
        cache::create_directory(&files.share)?;
        make_disk(
            &files.disk,
            options.disk_gib.unwrap_or(qemu::DEFAULT_DISK_GIB),
        )?;
        self.write_config(&GuestConfig {
            name: self.name.clone(),
            token: cache::random_hex(32)?,
            cache: real_path(&cache::directory()?)?,
            modules: kernel.modules.clone(),
        })?;
        let mut attempt = 1;
        loop {
            let state = self.start(options, &files)?;
            match self.wait_ready(state) {
                Err(NodeError::Died { log, .. })
                    if attempt < START_ATTEMPTS && log.contains("host forwarding rule") =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn start(&self, options: &Options, files: &qemu::Files) -> Result<State, NodeError> {
        let agent_port = free_port()?;
        self.keep_previous_logs()?;
        let log = self.directory.join("qemu.log");
        let output = File::create(&log).map_err(io_error("creating", &log))?;
        let error_output = output.try_clone().map_err(io_error("sharing", &log))?;
        let mut command = Command::new(qemu::program(&cache::directory()?));
        command
            .args(qemu::arguments(&self.name, options, files, agent_port))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(error_output)
            // Its own process group: an interrupt at the terminal is not for QEMU.
            .process_group(0);
        let child = command.spawn().map_err(|source| NodeError::Program {
            program: qemu::PROGRAM,
            package: qemu::PACKAGE,
            source,
        })?;
        let guard = StartGuard::new(child);
        let process = ProcessId::of(guard.pid()).ok_or_else(|| self.died())?;
        let state = State {
            process,
            agent_port,
            ready: false,
            starter: std::process::id(),
            protocol: protocol::VERSION,
            options: options.clone(),
        };
        self.write_state(&state)?;
        guard.release();
        Ok(state)
    }

    /// Waits for the agent; ends QEMU when it does not answer in time.
    pub(super) fn wait_ready(&self, mut state: State) -> Result<State, NodeError> {
        let deadline = Instant::now() + BOOT_TIMEOUT;
        loop {
            if (state.ready || self.console_says_ready()) && self.ping(&state, PING_TIMEOUT).is_ok()
            {
                state.ready = true;
                self.write_state(&state)?;
                return Ok(state);
            }
            if !state.process.is_alive() {
                return Err(self.died());
            }
            if Instant::now() >= deadline {
                state.process.end(STOP_GRACE);
                return Err(NodeError::Timeout {
                    name: self.name.clone(),
                    log: self.tail(),
                });
            }
            std::thread::sleep(POLL);
        }
    }

    /// A connection before the guest can take it would only be waited for in vain.
    fn console_says_ready(&self) -> bool {
        let console = fs::read(self.console()).unwrap_or_default();
        console
            .windows(READY_LINE.len())
            .any(|bytes| bytes == READY_LINE.as_bytes())
    }
}

/// Ends QEMU if the start fails between the spawn and the state file.
struct StartGuard(Option<Child>);

impl StartGuard {
    fn new(child: Child) -> Self {
        Self(Some(child))
    }

    fn pid(&self) -> i32 {
        self.0.as_ref().map_or(0, |child| child.id() as i32)
    }

    /// The state file names the process now; it is to outlive this program. A thread
    /// reaps it in case this program is the longer-lived one.
    fn release(mut self) {
        if let Some(mut child) = self.0.take() {
            std::thread::spawn(move || child.wait());
        }
    }
}

impl Drop for StartGuard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A path without symbolic links: these would lead out of the live view of the host.
fn real_path(path: &Path) -> Result<PathBuf, NodeError> {
    Ok(path.canonicalize().map_err(io_error("resolving", path))?)
}

/// The program that the guest runs as init: `HULL_TESTNODE_PROGRAM` where a test
/// drives the library, this program otherwise.
fn own_program() -> Result<PathBuf, NodeError> {
    if let Some(path) = std::env::var_os("HULL_TESTNODE_PROGRAM") {
        return Ok(PathBuf::from(path));
    }
    let path = std::env::current_exe().map_err(io_error("finding", Path::new("/proc/self/exe")))?;
    Ok(path)
}

/// A port of 127.0.0.1 that was free a moment ago.
fn free_port() -> Result<u16, NodeError> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(io_error("finding a free port on", Path::new("127.0.0.1")))?;
    Ok(port.port())
}

fn make_disk(path: &Path, gib: u32) -> Result<(), NodeError> {
    let file = File::create(path).map_err(io_error("creating", path))?;
    file.set_len(u64::from(gib) << 30)
        .map_err(io_error("sizing", path))?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .map_err(io_error("protecting", path))?;
    drop(file);
    // Nothing is worth keeping across the node's life: no reserved blocks, and tables
    // are initialised when they are first used.
    let output = Command::new("/sbin/mkfs.ext4")
        .args([
            "-q",
            "-F",
            "-m",
            "0",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
        ])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| NodeError::Program {
            program: "mkfs.ext4",
            package: "e2fsprogs",
            source,
        })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(NodeError::Format {
            path: path.to_owned(),
            stderr,
        });
    }
    Ok(())
}
