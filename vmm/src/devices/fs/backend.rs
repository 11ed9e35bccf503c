//! The conversation with hull-fsd: vhost-user, the front end's side.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::{
    VhostUserHeaderFlag, VhostUserProtocolFeatures, VhostUserVirtioFeatures,
};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::eventfd::EventFd;

use crate::memory::GuestMemory;
use crate::virtio::VirtQueue;

/// The back end cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// A socket that cannot be used.
    #[error("Failed to prepare the socket of the back end")]
    Socket(#[source] io::Error),
    /// A vhost-user request failed.
    #[error("Failed to {doing} the back end")]
    Request {
        /// What was being done.
        doing: &'static str,
        /// Cause.
        #[source]
        source: vhost::Error,
    },
    /// It does not do what the driver was promised.
    #[error("The back end lacks features {missing:#x}")]
    Features {
        /// Bits.
        missing: u64,
    },
    /// It has another number of queues.
    #[error("The back end has {found} queues; {wanted} are needed")]
    Queues {
        /// As it says.
        found: u64,
        /// As the guest sees.
        wanted: u64,
    },
    /// Guest memory that cannot be shared.
    #[error("Guest memory cannot be shared with the back end")]
    Memory,
    /// There is one, or there was.
    #[error("The virtio-fs device had a back end before")]
    Taken,
}

impl FsError {
    fn request(doing: &'static str) -> impl Fn(vhost::Error) -> Self {
        move |source| Self::Request { doing, source }
    }
}

/// A connected back end.
pub struct Backend {
    frontend: Frontend,
    /// To learn that it is gone.
    watched: UnixStream,
    features: u64,
}

impl Backend {
    /// Takes up the conversation.
    pub fn connect(stream: UnixStream, queues: u64) -> Result<Self, FsError> {
        stream.set_nonblocking(false).map_err(FsError::Socket)?;
        let watched = stream.try_clone().map_err(FsError::Socket)?;
        let mut frontend = Frontend::from_stream(stream, queues);
        frontend.set_owner().map_err(FsError::request("claim"))?;
        let features = frontend
            .get_features()
            .map_err(FsError::request("read the features of"))?;
        let needed = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        if features & needed == 0 {
            return Err(FsError::Features { missing: needed });
        }
        let offered = frontend
            .get_protocol_features()
            .map_err(FsError::request("read the protocol features of"))?;
        let wanted = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::REPLY_ACK;
        if !offered.contains(wanted) {
            return Err(FsError::Features {
                missing: (wanted - offered).bits(),
            });
        }
        frontend
            .set_protocol_features(wanted)
            .map_err(FsError::request("set the protocol features of"))?;
        // Every request is answered from here on: a refusal is noticed where it happens.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let found = frontend
            .get_queue_num()
            .map_err(FsError::request("count the queues of"))?;
        if found != queues {
            return Err(FsError::Queues {
                found,
                wanted: queues,
            });
        }
        Ok(Self {
            frontend,
            watched,
            features,
        })
    }

    /// The socket, to watch for its end.
    pub fn socket(&self) -> RawFd {
        self.watched.as_raw_fd()
    }

    /// Hands over the queues; `calls` are what it signals used buffers with.
    pub fn start(
        &mut self,
        features: u64,
        memory: &GuestMemory,
        queues: &[Option<VirtQueue>],
        calls: &[EventFd],
    ) -> Result<(), FsError> {
        let missing = features & !self.features;
        if missing != 0 {
            return Err(FsError::Features { missing });
        }
        let protocol = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();
        self.frontend
            .set_features(features | protocol)
            .map_err(FsError::request("set the features of"))?;
        let regions = memory.iter().map(shared).collect::<Result<Vec<_>, _>>()?;
        self.frontend
            .set_mem_table(&regions)
            .map_err(FsError::request("share guest memory with"))?;
        for (index, (queue, call)) in queues.iter().zip(calls).enumerate() {
            if let Some(queue) = queue {
                self.start_queue(index, queue, memory, call)?;
            }
        }
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: usize,
        queue: &VirtQueue,
        memory: &GuestMemory,
        call: &EventFd,
    ) -> Result<(), FsError> {
        let rings = queue.rings();
        let address = |guest: u64| {
            memory
                .get_host_address(GuestAddress(guest))
                .map(|address| address as u64)
                .map_err(|_| FsError::Memory)
        };
        let layout = VringConfigData {
            queue_max_size: rings.size,
            queue_size: rings.size,
            flags: 0,
            desc_table_addr: address(rings.descriptors)?,
            used_ring_addr: address(rings.used)?,
            avail_ring_addr: address(rings.available)?,
            log_addr: None,
        };
        let kick = queue.doorbell().ok_or(FsError::Memory)?;
        let failed = FsError::request("give a queue to");
        let backend = &mut self.frontend;
        backend.set_vring_num(index, rings.size).map_err(&failed)?;
        backend.set_vring_addr(index, &layout).map_err(&failed)?;
        // Requests up to here are answered; with an empty device that is none.
        backend
            .set_vring_base(index, rings.used_index)
            .map_err(&failed)?;
        backend.set_vring_call(index, call).map_err(&failed)?;
        backend.set_vring_kick(index, kick).map_err(&failed)?;
        backend.set_vring_enable(index, true).map_err(&failed)
    }

    /// Takes the queues back. When it returns, the back end touches them no more.
    pub fn stop(&mut self, queues: usize) -> Result<(), FsError> {
        for index in 0..queues {
            self.frontend
                .get_vring_base(index)
                .map_err(FsError::request("take a queue from"))?;
        }
        Ok(())
    }
}

fn shared(region: &vm_memory::GuestRegionMmap<()>) -> Result<VhostUserMemoryRegionInfo, FsError> {
    let file = region.file_offset().ok_or(FsError::Memory)?;
    Ok(VhostUserMemoryRegionInfo {
        guest_phys_addr: region.start_addr().0,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
        mmap_offset: file.start(),
        mmap_handle: file.file().as_raw_fd(),
    })
}
