//! The registry at another address: its answers handed on as they are, or up to a closed valve.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context, Result};

use crate::{cluster::REGISTRY, wait};

const CHUNK_BYTES: usize = 16 * 1024;

/// Lets through so many bytes, and the rest once it is opened.
#[derive(Debug)]
pub struct Valve {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// Bytes that may still pass; all of them with `None`.
    left: Option<usize>,
    /// Whether some had to stop.
    stopped: bool,
}

impl Valve {
    fn new(left: Option<usize>) -> Arc<Valve> {
        let stopped = false;
        Arc::new(Valve {
            state: Mutex::new(State { left, stopped }),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once `count` bytes may pass.
    fn pass(&self, count: usize) {
        let mut state = self.state();
        match &mut state.left {
            Some(left) if *left >= count => {
                *left -= count;
                return;
            }
            Some(_) => state.stopped = true,
            None => return,
        }
        let wait = self.changed.wait_while(state, |state| state.left.is_some());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until an answer stands still.
    pub fn stopped(&self) -> Result<()> {
        wait::until("an answer of the registry to stop half-way", 60, || {
            let stopped = self.state().stopped;
            Ok(stopped.then_some(()).ok_or_else(|| "it has not".into()))
        })
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.state().left = None;
        self.changed.notify_all();
    }
}

/// The registry, until this process ends, behind a valve that closes after so many bytes; and its
/// address there.
pub fn registry_that_stops_after(bytes: usize) -> Result<(String, Arc<Valve>)> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening for a registry")?;
    let address = listener.local_addr()?.to_string();
    let valve = Valve::new(Some(bytes));
    serve(listener, valve.clone());
    Ok((address, valve))
}

/// Hands connections on to the registry, until this process ends.
pub(crate) fn to_registry(listener: TcpListener) {
    serve(listener, Valve::new(None));
}

fn serve(listener: TcpListener, valve: Arc<Valve>) {
    let free = Valve::new(None);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(REGISTRY) else {
                continue;
            };
            let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
                continue;
            };
            pump(client, server, free.clone());
            pump(server_too, client_too, valve.clone());
        }
    });
}

/// Copies until the sender is done, and says so to the receiver.
fn pump(mut from: TcpStream, mut to: TcpStream, valve: Arc<Valve>) {
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            valve.pass(count);
            if to.write_all(&chunk[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
}
