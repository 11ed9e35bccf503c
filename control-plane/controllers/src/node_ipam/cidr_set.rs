//! A network cut into blocks of one size, and who uses which.

use std::{collections::BTreeMap, ops::RangeInclusive};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Blocks of one network at most: 2 to this power, as in Kubernetes.
const MAX_BITS: u8 = 16;

/// Why a network cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CidrSetError {
    /// A block would be larger than the network, or smaller than an address.
    #[error("{cluster} cannot be cut into networks of /{mask}")]
    Mask {
        /// The network.
        cluster: IpNet,
        /// The blocks' prefix length.
        mask: u8,
    },
    /// Too many blocks.
    #[error("{cluster} cut into networks of /{mask} makes more than 2^{MAX_BITS} of them")]
    TooMany {
        /// The network.
        cluster: IpNet,
        /// The blocks' prefix length.
        mask: u8,
    },
}

/// See the module. A block has as many users as took it: it is free when the last has given it
/// back.
#[derive(Debug, Clone)]
pub(super) struct CidrSet {
    cluster: IpNet,
    mask: u8,
    blocks: u32,
    users: BTreeMap<u32, u32>,
    /// Networks that are larger than a block: somebody may use any part of them.
    claims: Vec<IpNet>,
    /// Where the search begins: blocks that were given back rest as long as others are free.
    next: u32,
}

impl CidrSet {
    /// All blocks are free.
    pub(super) fn new(cluster: IpNet, mask: u8) -> Result<Self, CidrSetError> {
        let cluster = cluster.trunc();
        if mask < cluster.prefix_len() || mask > cluster.max_prefix_len() {
            return Err(CidrSetError::Mask { cluster, mask });
        }
        let bits = mask - cluster.prefix_len();
        if bits > MAX_BITS {
            return Err(CidrSetError::TooMany { cluster, mask });
        }
        Ok(CidrSet {
            cluster,
            mask,
            blocks: 1 << bits,
            users: BTreeMap::new(),
            claims: Vec::new(),
            next: 0,
        })
    }

    /// Takes the next free block; one that somebody claims only when there is no other.
    pub(super) fn take(&mut self) -> Option<IpNet> {
        let free = || {
            let order = (self.next..self.blocks).chain(0..self.next);
            order.filter(|block| !self.users.contains_key(block))
        };
        let claims: Vec<_> = self
            .claims
            .iter()
            .filter_map(|one| self.touched(*one))
            .collect();
        let unclaimed = |block: &u32| !claims.iter().any(|claim| claim.contains(block));
        let block = free().find(unclaimed).or_else(|| free().next())?;
        self.users.insert(block, 1);
        self.next = (block + 1) % self.blocks;
        self.block(block)
    }

    /// Takes every block that a network touches.
    pub(super) fn occupy(&mut self, network: IpNet) {
        for block in self.touched(network).into_iter().flatten() {
            *self.users.entry(block).or_insert(0) += 1;
        }
    }

    /// Gives them back.
    pub(super) fn release(&mut self, network: IpNet) {
        for block in self.touched(network).into_iter().flatten() {
            if let Some(users) = self.users.get_mut(&block) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(&block);
                }
            }
        }
    }

    /// Notes that somebody claims a network which is larger than a block. That keeps nobody from
    /// its blocks, or one claim of everything would leave nothing to others.
    pub(super) fn claim(&mut self, network: IpNet) {
        self.claims.push(network);
    }

    /// Takes a claim back.
    pub(super) fn unclaim(&mut self, network: IpNet) {
        if let Some(at) = self.claims.iter().position(|one| *one == network) {
            self.claims.swap_remove(at);
        }
    }

    /// The network is a part of this one, and larger than a block.
    pub(super) fn is_too_small_for(&self, network: &IpNet) -> bool {
        self.contains(network) && network.prefix_len() < self.mask
    }

    /// The network is a part of this one.
    pub(super) fn contains(&self, network: &IpNet) -> bool {
        self.cluster.contains(network)
    }

    fn block_shift(&self) -> u8 {
        self.cluster.max_prefix_len() - self.mask
    }

    fn block(&self, block: u32) -> Option<IpNet> {
        match self.cluster {
            IpNet::V4(cluster) => {
                let base = u32::from(cluster.network()) + (block << self.block_shift());
                Some(Ipv4Net::new(base.into(), self.mask).ok()?.into())
            }
            IpNet::V6(cluster) => {
                let base =
                    u128::from(cluster.network()) + (u128::from(block) << self.block_shift());
                Some(Ipv6Net::new(base.into(), self.mask).ok()?.into())
            }
        }
    }

    fn touched(&self, network: IpNet) -> Option<RangeInclusive<u32>> {
        let (first, last) = bounds(network);
        let (base, end) = bounds(self.cluster);
        if network.addr().is_ipv6() != self.cluster.addr().is_ipv6() || last < base || first > end {
            return None;
        }
        let block = |address: u128| {
            // At most MAX_BITS are left.
            ((address.clamp(base, end) - base) >> self.block_shift()) as u32
        };
        Some(block(first)..=block(last))
    }
}

/// A network's first and last address.
fn bounds(network: IpNet) -> (u128, u128) {
    match network {
        IpNet::V4(network) => (
            u32::from(network.network()).into(),
            u32::from(network.broadcast()).into(),
        ),
        IpNet::V6(network) => (network.network().into(), network.broadcast().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn set(cluster: &str, mask: u8) -> CidrSet {
        CidrSet::new(net(cluster), mask).unwrap()
    }

    #[test]
    fn blocks_come_in_order_and_rest_after_their_use() {
        let mut set = set("10.42.0.0/22", 24);
        assert_eq!(set.take(), Some(net("10.42.0.0/24")));
        assert_eq!(set.take(), Some(net("10.42.1.0/24")));
        set.release(net("10.42.0.0/24"));
        assert_eq!(set.take(), Some(net("10.42.2.0/24")));
        assert_eq!(set.take(), Some(net("10.42.3.0/24")));
        assert_eq!(set.take(), Some(net("10.42.0.0/24")), "the rested one");
        assert_eq!(set.take(), None);
    }

    #[test]
    fn networks_of_another_size_take_all_that_they_touch() {
        let mut set = set("10.42.0.0/22", 24);
        set.occupy(net("10.42.0.0/23"));
        set.occupy(net("10.42.2.128/25"));
        for elsewhere in ["10.99.0.0/24", "fd00::/64"] {
            set.occupy(net(elsewhere));
        }
        assert_eq!(set.take(), Some(net("10.42.3.0/24")));
        assert_eq!(set.take(), None);
        set.release(net("10.42.0.0/23"));
        assert_eq!(set.take(), Some(net("10.42.0.0/24")));
    }

    #[test]
    fn a_block_is_free_when_its_last_user_went() {
        let mut set = set("10.42.0.0/24", 24);
        set.occupy(net("10.42.0.0/24"));
        set.occupy(net("10.42.0.0/24"));
        set.release(net("10.42.0.0/24"));
        assert_eq!(set.take(), None);
        set.release(net("10.42.0.0/24"));
        assert_eq!(set.take(), Some(net("10.42.0.0/24")));
    }

    #[test]
    fn what_is_claimed_goes_last() {
        let mut set = set("10.42.0.0/22", 24);
        set.claim(net("10.42.0.0/23"));
        let taken: Vec<_> = (0..4).map(|_| set.take().unwrap()).collect();
        let wanted = [
            "10.42.2.0/24",
            "10.42.3.0/24",
            "10.42.0.0/24",
            "10.42.1.0/24",
        ];
        assert_eq!(taken, wanted.map(net));
        set.release(net("10.42.0.0/24"));
        set.release(net("10.42.3.0/24"));
        set.unclaim(net("10.42.0.0/23"));
        assert_eq!(set.take(), Some(net("10.42.3.0/24")), "by its turn again");
    }

    #[test]
    fn ipv6_is_cut_alike() {
        let mut set = set("fd42::/48", 64);
        assert_eq!(set.take(), Some(net("fd42::/64")));
        assert_eq!(set.take(), Some(net("fd42:0:0:1::/64")));
        set.occupy(net("fd42:0:0:2::/64"));
        assert_eq!(set.take(), Some(net("fd42:0:0:3::/64")));
    }

    #[test]
    fn impossible_sizes_are_refused() {
        let refused = |cluster: &str, mask| CidrSet::new(net(cluster), mask).unwrap_err();
        assert!(matches!(
            refused("10.42.0.0/16", 8),
            CidrSetError::Mask { .. }
        ));
        assert!(matches!(
            refused("10.42.0.0/16", 33),
            CidrSetError::Mask { .. }
        ));
        assert!(matches!(
            refused("fd42::/40", 64),
            CidrSetError::TooMany { .. }
        ));
    }
}
