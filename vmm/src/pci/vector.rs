//! One message-signalled interrupt: an eventfd that KVM turns into the message.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::interrupts::{InterruptController, InterruptError, MsiMessage};

/// See the module. While it is not connected, signals are kept in the eventfd.
pub struct Vector {
    controller: Arc<dyn InterruptController>,
    gsi: u32,
    event: EventFd,
    connected: bool,
}

impl Vector {
    /// Takes an interrupt number.
    pub fn new(controller: Arc<dyn InterruptController>) -> Result<Self, InterruptError> {
        let gsi = controller.allocate()?;
        let event = EventFd::new(EFD_NONBLOCK).map_err(|error| InterruptError::IrqFd {
            gsi,
            source: kvm_ioctls::Error::new(error.raw_os_error().unwrap_or(libc::EIO)),
        })?;
        Ok(Self {
            controller,
            gsi,
            event,
            connected: false,
        })
    }

    /// What raises it.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Makes signals become `message`, those that were kept too.
    pub fn connect(&mut self, message: MsiMessage) -> Result<(), InterruptError> {
        self.controller.route(self.gsi, message)?;
        if self.connected {
            return Ok(());
        }
        // Signals from before do not reach KVM; this one is repeated after it listens.
        let kept = self.event.read().is_ok();
        self.controller.connect(self.gsi, &self.event)?;
        self.connected = true;
        if kept {
            self.raise();
        }
        Ok(())
    }

    /// Makes the eventfd keep signals until the next [`Vector::connect`].
    pub fn disconnect(&mut self) -> Result<(), InterruptError> {
        if std::mem::take(&mut self.connected) {
            self.controller.disconnect(self.gsi, &self.event)?;
        }
        Ok(())
    }

    /// Raises it.
    pub fn raise(&self) {
        // EAGAIN: the counter is full, so the interrupt is on its way already.
        let _ = self.event.write(1);
    }

    /// Whether a signal is kept.
    pub fn is_pending(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.event.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one valid pollfd; returns at once.
        !self.connected && unsafe { libc::poll(&raw mut poll, 1, 0) } > 0
    }
}
