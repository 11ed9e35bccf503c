//! A virtual machine: built from its configuration, then run to its end.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::thread::JoinHandleExt;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hull_vmm_client::config::VmConfig;
use hull_vmm_client::exit::ExitReason;
use hull_vmm_client::scaled;
use kvm_ioctls::{Kvm, VmFd};
use seccompiler::BpfProgram;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::control::{Control, Disk, FsDevice, Server};
use crate::cpu::{Buses, ExitCounters, Gate, Vcpu, install_kick_handler, kick_signal};
use crate::descriptors::Descriptors;
use crate::devices::balloon::{Balloon, BalloonMetrics, BalloonResizer};
use crate::devices::block::{Block, BlockMetrics};
use crate::devices::fs::{Fs, FsMetrics};
use crate::devices::net::{Net, NetMetrics, Tap, parse_mac};
use crate::devices::rng::{Rng, RngMetrics};
use crate::devices::serial::{Console, SerialPort};
use crate::devices::vsock::{Muxer, Vsock, VsockMetrics};
use crate::error::VmmError;
use crate::events::{DevicePoller, EventLoop, chain};
use crate::exit::ExitSignal;
use crate::interrupts::{InterruptController, KvmInterrupts};
use crate::jail::privileges;
use crate::jail::seccomp::{self, Role};
use crate::memory::{self, GuestMemory};
use crate::metrics::Samples;
use crate::pci::PciRoot;
use crate::virtio::{Doorbells, KvmDoorbells, VirtioDevice, VirtioPciDevice};
use crate::{acpi, boot, layout};

mod passthrough;

use passthrough::Passthrough;

/// How long vCPU threads may take to leave the guest at the end, before [`scaled`].
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
const STOP_POLL: Duration = Duration::from_millis(1);
/// KVM API version that every kernel since 2.6.22 has.
const KVM_API_VERSION: i32 = 12;

struct Machine {
    vm: Arc<VmFd>,
    memory: GuestMemory,
    pci: PciRoot,
    controller: Arc<dyn InterruptController>,
    doorbells: Arc<dyn Doorbells>,
    disk_loop: EventLoop,
    device_loop: EventLoop,
    disks: Vec<Disk>,
    nets: Vec<(String, Arc<Mutex<Net>>)>,
    balloon: Option<BalloonResizer>,
    fs: Option<Arc<Mutex<Fs>>>,
    passthrough: Option<Passthrough>,
    metrics: Vec<(String, Arc<dyn Samples>)>,
}

/// Runs the VM of `config` to its end; gives the reason and a sentence about it.
pub fn run(
    config: &VmConfig,
    descriptors: &mut Descriptors,
) -> Result<(ExitReason, String), VmmError> {
    use_one_heap();
    let exit = Arc::new(ExitSignal::new().map_err(VmmError::io("create the exit event"))?);
    report_panics(&exit);
    let signals = take_signals().map_err(VmmError::io("take over SIGTERM"))?;
    install_kick_handler().map_err(VmmError::io("install the kick handler"))?;
    let kvm = open_kvm(descriptors.take(config.kvm_fd, "KVM device")?)?;
    let console = Console::new(File::from(
        descriptors.take(config.console_fd, "console file")?,
    ));
    let listener = UnixListener::from(descriptors.take(config.control_fd, "control socket")?);
    let server =
        Server::new(listener, signals, &exit).map_err(VmmError::io("watch the control socket"))?;
    let mut machine = Machine::new(&kvm, config)?;
    let com1 = machine.serial_interrupt()?;
    let root = machine.add_devices(config, descriptors)?;
    machine.add_passthrough(&kvm, config, descriptors)?;
    let entry = load(&machine, config, descriptors)?;
    let vcpus = Vcpu::create_all(&kvm, &machine.vm, config.vcpus, entry)?;
    drop(kvm);
    let filters = match &config.jail {
        Some(jail) => {
            privileges::enter(jail, root.as_ref())?;
            if jail.seccomp {
                Some(Filters::new(machine.passthrough.is_some())?)
            } else {
                None
            }
        }
        None => None,
    };
    let buses = Arc::new(Buses {
        serial: SerialPort::new(com1, console.clone()),
        console,
        pci: machine.pci,
        exit: Arc::clone(&exit),
        gate: Gate::default(),
        exits: ExitCounters::default(),
    });
    let loops = [
        ("disks", machine.disk_loop),
        ("devices", machine.device_loop),
    ];
    let vcpus = start(vcpus, loops, &buses, filters.as_ref())?;
    let control = Control {
        id: config.id.clone(),
        disks: machine.disks,
        nets: machine.nets,
        balloon: machine.balloon,
        fs: machine.fs.map(FsDevice::new),
        metrics: machine.metrics,
        vcpus: vcpus
            .iter()
            .map(|thread| thread.as_pthread_t() as libc::pthread_t)
            .collect(),
        buses: Arc::clone(&buses),
        started: Instant::now(),
    };
    tracing::info!(
        vcpus = config.vcpus,
        memory_mib = config.memory_mib,
        jailed = config.jail.is_some(),
        "The guest starts"
    );
    if let Err(error) = server.serve(&control) {
        exit.end(
            ExitReason::VmmError,
            format!("The control loop failed: {error}"),
        );
    }
    // Only after the end is known, or a paused guest would go on for a moment.
    stop(vcpus, &exit, &buses.gate);
    if let Some(passthrough) = &machine.passthrough {
        passthrough.shut_down();
    }
    buses.console.flush();
    Ok(exit
        .outcome()
        .unwrap_or((ExitReason::VmmError, "Ended without a reason".to_owned())))
}

/// glibc gives each thread a heap of its own, and opens a file in /proc before it makes one
/// smaller, which the seccomp filters forbid. One heap also is less memory per pod.
fn use_one_heap() {
    // SAFETY: called before any other thread is started. It fails only for unknown options.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn open_kvm(fd: OwnedFd) -> Result<Kvm, VmmError> {
    // SAFETY: the descriptor is open and owned; a file that is not KVM fails the check below.
    let kvm = unsafe { Kvm::from_raw_fd(fd.into_raw_fd()) };
    if kvm.get_api_version() != KVM_API_VERSION {
        return Err(VmmError::NotKvm);
    }
    Ok(kvm)
}

/// A panic of this program ends the VM with a record instead of a lost thread.
fn report_panics(exit: &Arc<ExitSignal>) {
    let exit = Arc::clone(exit);
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("hull-vmm panicked: {info}");
        exit.end(ExitReason::VmmError, format!("hull-vmm panicked: {info}"));
    }));
}

/// Blocks SIGTERM for every thread and gives a descriptor that reads it. SIGHUP and SIGINT
/// are ignored: the VMM outlives its parent's terminal.
fn take_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before it is used; results are checked.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        if libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        let fd = libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(OwnedFd::from_raw_fd(fd))
        }
    }
}

fn load(
    machine: &Machine,
    config: &VmConfig,
    descriptors: &mut Descriptors,
) -> Result<boot::Entry, VmmError> {
    let kernel = File::from(descriptors.take(config.boot.kernel_fd, "kernel")?);
    let initramfs = match config.boot.initramfs_fd {
        Some(fd) => Some(File::from(descriptors.take(fd, "initramfs")?)),
        None => None,
    };
    let resources = machine.pci_resources();
    let rsdp = acpi::write(&machine.memory, config.vcpus, &resources)?;
    Ok(boot::load(
        &machine.memory,
        &kernel,
        initramfs.as_ref(),
        &config.boot.cmdline,
        rsdp,
    )?)
}

impl Machine {
    fn new(kvm: &Kvm, config: &VmConfig) -> Result<Self, VmmError> {
        let vm = Arc::new(kvm.create_vm().map_err(VmmError::kvm("create the VM"))?);
        vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
            .map_err(VmmError::kvm("place the identity map"))?;
        vm.set_tss_address(layout::KVM_TSS)
            .map_err(VmmError::kvm("place the TSS"))?;
        vm.create_irq_chip()
            .map_err(VmmError::kvm("create the interrupt controllers"))?;
        let memory = memory::create(config.memory_mib, config.memory_pages)?;
        memory::register(&vm, &memory)?;
        let event_loop = || EventLoop::new().map_err(VmmError::io("create an event loop"));
        Ok(Self {
            controller: Arc::new(KvmInterrupts::new(Arc::clone(&vm))),
            doorbells: Arc::new(KvmDoorbells(Arc::clone(&vm))),
            vm,
            memory,
            pci: PciRoot::default(),
            disk_loop: event_loop()?,
            device_loop: event_loop()?,
            disks: Vec::new(),
            nets: Vec::new(),
            balloon: None,
            fs: None,
            passthrough: None,
            metrics: Vec::new(),
        })
    }

    fn serial_interrupt(&self) -> Result<EventFd, VmmError> {
        let event =
            EventFd::new(EFD_NONBLOCK).map_err(VmmError::io("create the serial interrupt"))?;
        self.controller.connect(layout::COM1_IRQ, &event)?;
        Ok(event)
    }

    /// Puts a device on the bus; `poller` tells which loop serves it.
    fn add(
        &mut self,
        device: Arc<Mutex<dyn VirtioDevice>>,
        poller: &DevicePoller,
        disk: bool,
    ) -> Result<(), VmmError> {
        let device = VirtioPciDevice::attach(
            &mut self.pci,
            device,
            Arc::clone(&self.controller),
            Arc::clone(&self.doorbells),
            self.memory.clone(),
        )?;
        let event_loop = if disk {
            &mut self.disk_loop
        } else {
            &mut self.device_loop
        };
        event_loop
            .add(poller, &device)
            .map_err(VmmError::io("watch a device"))
    }

    /// Adds disks, networks, vsock, rng, balloon and file system in this order; gives the vsock directory.
    fn add_devices(
        &mut self,
        config: &VmConfig,
        descriptors: &mut Descriptors,
    ) -> Result<Option<OwnedFd>, VmmError> {
        for disk in &config.disks {
            let metrics = Arc::new(BlockMetrics::default());
            let mut block = Block::new(disk.serial.clone(), disk.read_only, Arc::clone(&metrics));
            if let Some(fd) = disk.fd {
                block
                    .attach(descriptors.take(fd, "disk")?)
                    .map_err(|source| VmmError::Disk {
                        serial: disk.serial.clone(),
                        source,
                    })?;
            }
            let poller = self.disk_loop.poller();
            block
                .watch_limits(disk.limits, &poller)
                .map_err(VmmError::io("watch the limits of a disk"))?;
            let block = Arc::new(Mutex::new(block));
            self.disks.push(Disk::new(Arc::clone(&block)));
            self.metrics.push((disk.serial.clone(), metrics));
            self.add(block, &poller, true)?;
        }
        for net in &config.nets {
            let metrics = Arc::new(NetMetrics::default());
            let tap = match net.tap_fd {
                Some(fd) => Some(
                    Tap::new(descriptors.take(fd, "tap")?)
                        .map_err(VmmError::io("set up the tap"))?,
                ),
                None => None,
            };
            let poller = self.device_loop.poller();
            let mac = parse_mac(&net.mac)?;
            let mut device = Net::new(
                net.id.clone(),
                mac,
                net.mtu,
                tap,
                poller.clone(),
                Arc::clone(&metrics),
            );
            device
                .watch_limits(net.receive_limits, net.send_limits)
                .map_err(VmmError::io("watch the limits of a network"))?;
            let device = Arc::new(Mutex::new(device));
            self.nets.push((net.id.clone(), Arc::clone(&device)));
            self.metrics.push((net.id.clone(), metrics));
            self.add(device, &poller, false)?;
        }
        let root = self.add_vsock(config, descriptors)?;
        let metrics = Arc::new(RngMetrics::default());
        let poller = self.device_loop.poller();
        self.metrics
            .push(("rng".to_owned(), Arc::clone(&metrics) as Arc<dyn Samples>));
        self.add(Arc::new(Mutex::new(Rng::new(metrics))), &poller, false)?;
        if config.balloon {
            self.add_balloon()?;
        }
        self.add_fs(config, descriptors)?;
        Ok(root)
    }

    fn add_balloon(&mut self) -> Result<(), VmmError> {
        let metrics = Arc::new(BalloonMetrics::default());
        let device = Balloon::new(Arc::clone(&metrics));
        self.balloon = Some(device.resizer());
        self.metrics.push(("balloon".to_owned(), metrics));
        let poller = self.device_loop.poller();
        self.add(Arc::new(Mutex::new(device)), &poller, false)
    }

    fn add_fs(&mut self, config: &VmConfig, descriptors: &mut Descriptors) -> Result<(), VmmError> {
        let Some(fs) = &config.fs else {
            return Ok(());
        };
        let metrics = Arc::new(FsMetrics::default());
        let poller = self.device_loop.poller();
        let mut device = Fs::new(
            &fs.tag,
            fs.request_queues,
            poller.clone(),
            Arc::clone(&metrics),
        )
        .map_err(VmmError::io("create the events of virtio-fs"))?;
        if let Some(fd) = fs.socket_fd {
            let socket = descriptors.take(fd, "virtio-fs socket")?;
            device.attach(UnixStream::from(socket))?;
        }
        let device = Arc::new(Mutex::new(device));
        self.fs = Some(Arc::clone(&device));
        self.metrics.push(("fs".to_owned(), metrics));
        self.add(device, &poller, false)
    }

    fn add_vsock(
        &mut self,
        config: &VmConfig,
        descriptors: &mut Descriptors,
    ) -> Result<Option<OwnedFd>, VmmError> {
        let Some(vsock) = &config.vsock else {
            return Ok(None);
        };
        let root = descriptors.take(vsock.guest_socket_dir_fd, "vsock directory")?;
        // The jail makes it the root; without a jail it is just the working directory.
        // SAFETY: plain system call on an open descriptor.
        if unsafe { libc::fchdir(root.as_raw_fd()) } < 0 {
            return Err(VmmError::io("enter the vsock directory")(
                io::Error::last_os_error(),
            ));
        }
        let metrics = Arc::new(VsockMetrics::default());
        let poller = self.device_loop.poller();
        let listener = UnixListener::from(descriptors.take(vsock.listener_fd, "vsock listener")?);
        let prefix = vsock.guest_socket_prefix.clone();
        let muxer = Muxer::new(
            vsock.guest_cid,
            prefix,
            listener,
            poller.clone(),
            Arc::clone(&metrics),
        )
        .map_err(VmmError::io("watch the vsock listener"))?;
        let device = Vsock::new(vsock.guest_cid, muxer);
        self.metrics.push(("vsock".to_owned(), metrics));
        self.add(Arc::new(Mutex::new(device)), &poller, false)?;
        Ok(Some(root))
    }
}

struct Filters {
    main: BpfProgram,
    vcpu: BpfProgram,
    devices: BpfProgram,
}

impl Filters {
    fn new(passthrough: bool) -> Result<Self, VmmError> {
        Ok(Self {
            main: seccomp::filter(Role::Main, passthrough)?,
            vcpu: seccomp::filter(Role::Vcpu, passthrough)?,
            devices: seccomp::filter(Role::Devices, passthrough)?,
        })
    }
}

/// Starts all threads; the guest runs when every one of them is under its filter.
fn start(
    vcpus: Vec<Vcpu>,
    loops: [(&'static str, EventLoop); 2],
    buses: &Arc<Buses>,
    filters: Option<&Filters>,
) -> Result<Vec<JoinHandle<()>>, VmmError> {
    let ready = Arc::new(Barrier::new(vcpus.len() + loops.len() + 1));
    let spawn = |name: String, filter: Option<BpfProgram>, body: Box<dyn FnOnce(&Buses) + Send>| {
        let (ready, buses) = (Arc::clone(&ready), Arc::clone(buses));
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || {
                let locked = filter.as_ref().map_or(Ok(()), seccomp::apply);
                if let Err(error) = &locked {
                    buses.exit.end(
                        ExitReason::VmmError,
                        format!("Thread {name}: {}", chain(error)),
                    );
                }
                ready.wait();
                if !buses.exit.is_stopping() {
                    body(&buses);
                }
            })
    };
    for (name, event_loop) in loops {
        let filter = filters.map(|filters| filters.devices.clone());
        let body = Box::new(move |buses: &Buses| {
            if let Err(error) = event_loop.run() {
                buses.exit.end(
                    ExitReason::VmmError,
                    format!("The event loop of the {name} failed: {error}"),
                );
            }
        });
        spawn(name.to_owned(), filter, body).map_err(VmmError::io("start a device thread"))?;
    }
    let mut threads = Vec::new();
    for vcpu in vcpus {
        let filter = filters.map(|filters| filters.vcpu.clone());
        let name = format!("vcpu{}", vcpu.index());
        let body = Box::new(move |buses: &Buses| vcpu.run(buses));
        threads.push(spawn(name, filter, body).map_err(VmmError::io("start a vCPU thread"))?);
    }
    if let Some(filters) = filters {
        seccomp::apply(&filters.main)?;
    }
    ready.wait();
    Ok(threads)
}

/// Makes the vCPUs leave the guest. A thread that does not within the time limit dies with
/// the process.
fn stop(threads: Vec<JoinHandle<()>>, exit: &ExitSignal, gate: &Gate) {
    if !exit.is_stopping() {
        exit.end(ExitReason::VmmError, "The main loop ended");
    }
    gate.open();
    for thread in &threads {
        // SAFETY: the thread is not joined, so its id is valid.
        unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, kick_signal()) };
    }
    let deadline = Instant::now() + scaled(STOP_TIMEOUT);
    while threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
        std::thread::sleep(STOP_POLL);
    }
}
