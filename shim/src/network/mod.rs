//! The network of a sandbox, on the host.
//!
//! ```text
//!   host netns                 │ sandbox netns (/run/hull/netns/<id>)
//!   bridge ── veth ────────────┼── eth0 ══ tc redirect ══ tap ── fd ──► hull-vmm ── guest eth0
//! ```
//!
//! A CNI plugin puts `eth0` into the netns. Everything that arrives there is
//! redirected to a tap, and back: ingress qdiscs with a catch-all filter and a
//! `mirred` action. The guest takes over the MAC address, addresses, routes, MTU and
//! permanent neighbours of `eth0`. They stay on `eth0` too, where CNI CHECK looks for
//! them, but the host's stack never gets a frame to answer: the redirect is before it.
//!
//! The tap is not persistent: it goes when the VMM, which holds its only descriptor,
//! goes. The netns is a bind-mounted file, so it outlives the shim.
//!
//! * [`netns`]: making, entering and removing network namespaces
//! * [`tap`]: making a tap in the current netns
//! * [`link`]: reading an interface and redirecting (rtnetlink)
//! * [`pod`]: all of it together with CNI, as the sandbox code needs it

pub mod link;
pub mod netns;
pub mod pod;
pub mod tap;
