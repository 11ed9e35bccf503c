//! Remembers what it was asked to do.

use std::sync::Mutex;

use vmm_sys_util::eventfd::EventFd;

use super::{InterruptController, InterruptError, MsiMessage};

#[derive(Default)]
pub(crate) struct FakeController {
    pub routes: Mutex<Vec<(u32, MsiMessage)>>,
    pub events: Mutex<Vec<(u32, EventFd)>>,
    next: Mutex<u32>,
}

impl InterruptController for FakeController {
    fn allocate(&self) -> Result<u32, InterruptError> {
        let mut next = self.next.lock().unwrap();
        *next += 1;
        Ok(*next)
    }
    fn route(&self, gsi: u32, message: MsiMessage) -> Result<(), InterruptError> {
        self.routes.lock().unwrap().push((gsi, message));
        Ok(())
    }
    fn connect(&self, gsi: u32, event: &EventFd) -> Result<(), InterruptError> {
        self.events
            .lock()
            .unwrap()
            .push((gsi, event.try_clone().unwrap()));
        Ok(())
    }
    fn disconnect(&self, gsi: u32, _event: &EventFd) -> Result<(), InterruptError> {
        self.events.lock().unwrap().retain(|(one, _)| *one != gsi);
        Ok(())
    }
    fn connect_level(
        &self,
        gsi: u32,
        event: &EventFd,
        _served: &EventFd,
    ) -> Result<(), InterruptError> {
        self.connect(gsi, event)
    }
}
