//! Ends the guest.

use nix::sys::reboot::{RebootMode, reboot};

/// Powers the guest off; should that fail, restarts it, which ends a VM too. Returns
/// an exit status only if both fail.
pub fn off() -> i32 {
    eprintln!("hull-agent: power off");
    nix::unistd::sync();
    for mode in [RebootMode::RB_POWER_OFF, RebootMode::RB_AUTOBOOT] {
        let Err(error) = reboot(mode);
        eprintln!("hull-agent: reboot({mode:?}) failed: {error}");
    }
    1
}
