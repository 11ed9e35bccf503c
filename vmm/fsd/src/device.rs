//! The vhost-user device: queue 0 for what must not wait (FORGET), the rest for requests.
//!
//! Each queue has a thread, and its lock is held while a request is worked on: requests are
//! completed in their order, and stopping a queue (GET_VRING_BASE) waits for the last one.

use std::io::{self, Write};
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use fuse_backend_rs::abi::fuse_abi::{CreateIn, EntryOut, InHeader, OpenOut, OutHeader};
use fuse_backend_rs::api::filesystem::Context;
use fuse_backend_rs::api::server::Server;
use fuse_backend_rs::transport::{Reader, VirtioFsWriter, Writer};
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserVirtioFeatures};
use vhost_user_backend::{VhostUserBackend, VringMutex, VringT};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{ByteValued, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

use crate::filesystem::ShareFs;

/// Most entries of a queue.
const QUEUE_SIZE: usize = 1024;
/// VIRTIO_RING_F_INDIRECT_DESC, VIRTIO_RING_F_EVENT_IDX, VIRTIO_F_VERSION_1.
const FEATURES: u64 = 1 << 28 | 1 << 29 | 1 << 32;
/// FUSE_TMPFILE (linux/fuse.h).
const OPCODE_TMPFILE: u32 = 51;
/// Longest answer that is written in one go, bytes.
const TMPFILE_ANSWER_BYTES: usize =
    size_of::<OutHeader>() + size_of::<EntryOut>() + size_of::<OpenOut>();

type Memory = GuestMemoryAtomic<GuestMemoryMmap>;
type Guard = <Memory as GuestAddressSpace>::T;

/// See the module.
pub struct FsDevice {
    fs: Arc<ShareFs>,
    server: Server<Arc<ShareFs>>,
    queues: usize,
    memory: RwLock<Option<Memory>>,
}

impl FsDevice {
    /// A device with `request_queues` queues besides the one for urgent requests.
    pub fn new(fs: Arc<ShareFs>, request_queues: u16) -> Self {
        Self {
            server: Server::new(fs.clone()),
            fs,
            queues: usize::from(request_queues) + 1,
            memory: RwLock::new(None),
        }
    }

    fn serve(&self, vring: &VringMutex<Memory>) -> io::Result<()> {
        let memory = self
            .memory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .ok_or_else(|| io::Error::other("a queue runs before there is memory"))?;
        let guard = memory.memory();
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.drain(vring, &guard)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }

    fn drain(&self, vring: &VringMutex<Memory>, guard: &Guard) -> io::Result<()> {
        loop {
            let mut state = vring.get_mut();
            if !state.get_queue().ready() {
                return Ok(());
            }
            let popped = state.get_queue_mut().pop_descriptor_chain(guard.clone());
            let Some(chain) = popped else { return Ok(()) };
            let head = chain.head_index();
            let written = self.answer(guard, chain);
            state.add_used(head, written).map_err(io::Error::other)?;
            if state.needs_notification().map_err(io::Error::other)? {
                state.signal_used_queue()?;
            }
        }
    }

    /// Works on one request; gives the bytes that were written into its buffers. A request
    /// that makes no sense is given back without an answer.
    fn answer(&self, guard: &Guard, chain: DescriptorChain<Guard>) -> u32 {
        self.fs.metrics.requests.add(1);
        let memory: &GuestMemoryMmap = guard.deref();
        let buffers = Reader::from_descriptor_chain(memory, chain.clone())
            .and_then(|reader| Ok((reader, VirtioFsWriter::new(memory, chain)?)));
        let outcome = match buffers {
            Ok((reader, writer)) => match reader.clone().read_obj::<InHeader>() {
                Ok(header) if header.opcode == OPCODE_TMPFILE => {
                    self.make_temporary(&header, reader, writer).ok()
                }
                _ => self
                    .server
                    .handle_message(reader, Writer::VirtioFs(writer), None, None)
                    .ok(),
            },
            Err(_) => None,
        };
        if outcome.is_none() {
            self.fs.metrics.malformed.add(1);
        }
        u32::try_from(outcome.unwrap_or(0)).unwrap_or(0)
    }

    /// FUSE_TMPFILE, which the server does not know.
    fn make_temporary(
        &self,
        header: &InHeader,
        mut reader: Reader<'_>,
        mut writer: VirtioFsWriter<'_>,
    ) -> io::Result<usize> {
        let _: InHeader = reader.read_obj()?;
        let args: CreateIn = reader.read_obj()?;
        let made = self
            .fs
            .make_temporary(&Context::from(header), header.nodeid, &args);
        let mut answer = Vec::with_capacity(TMPFILE_ANSWER_BYTES);
        let mut head = OutHeader {
            unique: header.unique,
            ..Default::default()
        };
        match made {
            Ok((entry, handle)) => {
                head.len = TMPFILE_ANSWER_BYTES as u32;
                answer.extend_from_slice(head.as_slice());
                answer.extend_from_slice(EntryOut::from(entry).as_slice());
                let opened = OpenOut {
                    fh: handle,
                    ..Default::default()
                };
                answer.extend_from_slice(opened.as_slice());
            }
            Err(error) => {
                head.len = size_of::<OutHeader>() as u32;
                head.error = -error.raw_os_error().unwrap_or(libc::EIO);
                answer.extend_from_slice(head.as_slice());
            }
        }
        writer.write_all(&answer)?;
        Ok(answer.len())
    }
}

impl VhostUserBackend for FsDevice {
    type Bitmap = ();
    type Vring = VringMutex<Memory>;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        FEATURES | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits()
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK
    }

    fn set_event_idx(&self, _enabled: bool) {}

    fn update_memory(&self, memory: Memory) -> io::Result<()> {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|queue| 1 << queue).collect()
    }

    fn handle_event(
        &self,
        _event: u16,
        _ready: EventSet,
        vrings: &[Self::Vring],
        thread: usize,
    ) -> io::Result<()> {
        for vring in vrings {
            if let Err(error) = self.serve(vring) {
                // A thread that ends alone would leave the guest waiting; the front end
                // answers for a process that is gone.
                tracing::error!(queue = thread, %error, "The guest broke a queue");
                std::process::exit(1);
            }
        }
        Ok(())
    }
}
