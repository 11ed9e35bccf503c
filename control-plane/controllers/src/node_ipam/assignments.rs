//! Which node has which networks.

use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::{NodeCidrs, cidr_set::CidrSet};
use crate::runtime::Key;

/// What one node holds.
#[derive(Debug)]
struct Held {
    name: String,
    networks: Vec<IpNet>,
    /// Networks that are larger than a node's share.
    claims: Vec<IpNet>,
    /// The node was seen with them; otherwise they are meant for it.
    seen: bool,
}

impl Held {
    fn overlaps(&self, networks: &[IpNet]) -> bool {
        let same = |a: &IpNet, b: &IpNet| a.contains(&b.network()) || b.contains(&a.network());
        let mut theirs = self.networks.iter();
        theirs.any(|a| networks.iter().any(|b| same(a, b)))
    }
}

/// What became of the networks that a node has, where it is worth a word.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Adopted {
    /// Another node has part of them.
    pub(super) shared_with: Option<String>,
    /// They are larger than a node's share and do not count.
    pub(super) refused: Vec<IpNet>,
}

/// What there is for a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allotment {
    /// One network of each cluster network.
    Networks(Vec<IpNet>),
    /// All are in use; the node waits.
    NoneLeft {
        /// It did not wait before.
        newly: bool,
    },
}

/// See the module. Nodes are told apart by their uid: one that was deleted and made anew is
/// another node.
#[derive(Debug)]
pub(super) struct Assignments {
    sets: Vec<CidrSet>,
    held: HashMap<String, Held>,
    /// Nodes for which nothing was left.
    waiting: BTreeSet<Key>,
}

impl Assignments {
    /// Nobody has anything.
    pub(super) fn new(cidrs: &NodeCidrs) -> Self {
        let mut sets = cidrs.sets.clone();
        for set in &mut sets {
            for network in &cidrs.reserved {
                set.occupy(*network);
            }
        }
        Assignments {
            sets,
            held: HashMap::new(),
            waiting: BTreeSet::new(),
        }
    }

    /// Networks for a node; the same ones when asked again.
    pub(super) fn allot(&mut self, uid: &str, key: &Key) -> Allotment {
        if let Some(held) = self.held.get(uid) {
            return Allotment::Networks(held.networks.clone());
        }
        let mut networks = Vec::with_capacity(self.sets.len());
        for set in &mut self.sets {
            networks.extend(set.take());
        }
        let complete = networks.len() == self.sets.len();
        let held = Held {
            name: key.name.clone(),
            networks: networks.clone(),
            claims: Vec::new(),
            seen: false,
        };
        self.held.insert(uid.to_owned(), held);
        if complete {
            self.waiting.remove(key);
            return Allotment::Networks(networks);
        }
        self.release(uid);
        Allotment::NoneLeft {
            newly: self.waiting.insert(key.clone()),
        }
    }

    /// A node has these networks, whoever gave them. Those that are no part of the cluster's do
    /// not count: 0.0.0.0/0 would leave nothing to anybody. No more do those that are larger than
    /// a node's share, though others get their parts last. What was meant for it otherwise is free
    /// again, and what was meant for others of these.
    pub(super) fn adopt(&mut self, uid: &str, key: &Key, mut networks: Vec<IpNet>) -> Adopted {
        networks.retain(|network| self.sets.iter().any(|set| set.contains(network)));
        let too_large = |network: &IpNet| self.sets.iter().any(|set| set.is_too_small_for(network));
        let (claims, networks): (Vec<_>, Vec<_>) = networks.into_iter().partition(too_large);
        if let Some(held) = self.held.get_mut(uid)
            && held.networks == networks
            && held.claims == claims
        {
            held.seen = true;
            return Adopted::default();
        }
        self.release(uid);
        self.waiting.remove(key);
        let (seen, meant): (Vec<_>, Vec<_>) = self
            .held
            .iter()
            .filter(|(_, held)| held.overlaps(&networks))
            .map(|(uid, held)| (uid.clone(), held))
            .partition(|(_, held)| held.seen);
        let other = seen.first().map(|(_, held)| held.name.clone());
        // Those shall get something else.
        let meant: Vec<String> = meant.into_iter().map(|(uid, _)| uid).collect();
        for uid in meant {
            self.release(&uid);
        }
        for network in &networks {
            for set in &mut self.sets {
                set.occupy(*network);
            }
        }
        for claim in &claims {
            for set in &mut self.sets {
                set.claim(*claim);
            }
        }
        let held = Held {
            name: key.name.clone(),
            networks,
            claims: claims.clone(),
            seen: true,
        };
        self.held.insert(uid.to_owned(), held);
        Adopted {
            shared_with: other,
            refused: claims,
        }
    }

    /// The node went. Gives the nodes that may now get something.
    pub(super) fn release(&mut self, uid: &str) -> Vec<Key> {
        let Some(held) = self.held.remove(uid) else {
            return Vec::new();
        };
        for network in held.networks {
            for set in &mut self.sets {
                set.release(network);
            }
        }
        for claim in held.claims {
            for set in &mut self.sets {
                set.unclaim(claim);
            }
        }
        self.waiting.iter().cloned().collect()
    }

    /// Nobody waits under this key any more.
    pub(super) fn forget(&mut self, key: &Key) {
        self.waiting.remove(key);
    }
}
