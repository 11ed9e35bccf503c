//! Signals of the caller: they abandon a boot, or go to the command inside the node.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hull_testnode::client::Control;
use hull_testnode::node::Node;
use hull_testnode::terminal;
use nix::sys::signal::{SigSet, Signal};

/// This many requests to end make us end without waiting for the command.
const PATIENCE: u32 = 3;

const CAUGHT: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Number of the signal that ends us; 0 while none has come.
static ENDED_BY: AtomicI32 = AtomicI32::new(0);

/// The exit code after a signal has abandoned what we did, whatever error that caused.
pub fn exit_code_if_ended() -> Option<i32> {
    match ENDED_BY.load(Ordering::Acquire) {
        0 => None,
        number => Some(128 + number),
    }
}

/// Takes every signal of [`CAUGHT`] for the rest of the program's life.
#[derive(Debug)]
pub struct Signals {
    command: Arc<Mutex<Option<Control>>>,
}

impl Signals {
    /// Starts to take signals. Must be called before other threads are started, which
    /// inherit that these signals are blocked.
    pub fn start(node: &Node) -> anyhow::Result<Self> {
        let set: SigSet = CAUGHT.into_iter().collect();
        set.thread_block()?;
        let command = Arc::new(Mutex::new(None));
        let (slot, node) = (Arc::clone(&command), node.clone());
        std::thread::spawn(move || {
            let requests = AtomicU32::new(0);
            while let Ok(signal) = set.wait() {
                let control = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
                take(signal, control.as_ref(), &node, &requests);
            }
        });
        Ok(Self { command })
    }

    /// From now on signals go to this command.
    pub fn forward_to(&self, control: Control) {
        *self.command.lock().unwrap_or_else(PoisonError::into_inner) = Some(control);
    }
}

fn take(signal: Signal, control: Option<&Control>, node: &Node, requests: &AtomicU32) {
    let ends = matches!(
        signal,
        Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT
    );
    match control {
        None if ends => {
            ENDED_BY.store(signal as i32, Ordering::Release);
            node.abandon_start();
            std::process::exit(128 + signal as i32);
        }
        None => {}
        Some(control) if signal == Signal::SIGWINCH => {
            let (rows, columns) = terminal::size();
            let _ = control.resize(rows, columns);
        }
        Some(control) => {
            if ends && requests.fetch_add(1, Ordering::Relaxed) + 1 >= PATIENCE {
                control.disconnect();
                std::process::exit(128 + signal as i32);
            }
            let _ = control.signal(signal as i32);
        }
    }
}
