//! What a controller has written and not yet seen.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Key;

/// After this time a missing event is no longer waited for.
pub const EXPECTATION_TIMEOUT: Duration = Duration::from_secs(300);

struct Expected {
    creations: usize,
    deletions: HashSet<String>,
    /// Objects whose deletion may or may not have happened: (key, uid).
    doubtful: Vec<(Key, String)>,
    since: Instant,
    /// When the last answer came; `None` while requests are under way.
    answered: Option<Instant>,
}

impl Expected {
    fn is_met(&self) -> bool {
        self.creations == 0 && self.deletions.is_empty()
    }
}

/// Per owner: creations and deletions under way.
#[derive(Default)]
pub struct Expectations {
    owners: Mutex<HashMap<Key, Expected>>,
}

impl Expectations {
    /// Everything expected has been seen, or waited for long enough.
    pub fn satisfied(&self, owner: &Key) -> bool {
        self.remaining(owner).is_none()
    }

    /// How long the owner may still have to wait; `None` if it need not.
    pub fn remaining(&self, owner: &Key) -> Option<Duration> {
        let owners = self.owners.lock();
        let expected = owners.get(owner).filter(|expected| !expected.is_met())?;
        let left = EXPECTATION_TIMEOUT.saturating_sub(expected.since.elapsed());
        (!left.is_zero()).then_some(left)
    }

    /// That many objects are about to be created, and those with these uids to be deleted.
    pub fn expect(
        &self,
        owner: &Key,
        creations: usize,
        deletions: impl IntoIterator<Item = String>,
    ) {
        let expected = Expected {
            creations,
            deletions: deletions.into_iter().collect(),
            doubtful: Vec::new(),
            since: Instant::now(),
            answered: None,
        };
        self.owners.lock().insert(owner.clone(), expected);
    }

    /// All requests of the round were answered.
    pub fn answered(&self, owner: &Key) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.answered = Some(Instant::now());
        }
    }

    /// That many creations were seen, or failed.
    pub fn creations_over(&self, owner: &Key, count: usize) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// The deletion was seen, or failed.
    pub fn deletion_over(&self, owner: &Key, uid: &str) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.deletions.remove(uid);
        }
    }

    /// The object is being deleted, which has not been seen yet.
    pub fn expects_deletion(&self, owner: &Key, uid: Option<&str>) -> bool {
        let owners = self.owners.lock();
        let expected = owners.get(owner);
        expected.is_some_and(|expected| expected.deletions.contains(uid.unwrap_or_default()))
    }

    /// The answer to the deletion was lost: it stays expected until somebody has looked.
    pub fn doubt(&self, owner: &Key, object: Key, uid: &str) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.doubtful.push((object, uid.to_owned()));
        }
    }

    /// Deletions that are expected although nobody knows whether they happened.
    pub fn doubts(&self, owner: &Key) -> Vec<(Key, String)> {
        let mut owners = self.owners.lock();
        let Some(expected) = owners.get_mut(owner) else {
            return Vec::new();
        };
        let deletions = &expected.deletions;
        expected.doubtful.retain(|(_, uid)| deletions.contains(uid));
        expected.doubtful.clone()
    }

    /// Somebody has looked: the object is deleted, which will show, or it is not.
    pub fn settle_doubt(&self, owner: &Key, uid: &str, is_deleted: bool) {
        if let Some(expected) = self.owners.lock().get_mut(owner) {
            expected.doubtful.retain(|(_, own)| own != uid);
            if !is_deleted {
                expected.deletions.remove(uid);
            }
        }
    }

    /// A whole list that was asked for at `began` has been seen: what had been created by then is
    /// in it, or gone again without a trace. Gives the owners that waited for that.
    pub fn relisted(&self, began: Instant) -> Vec<Key> {
        let mut woken = Vec::new();
        for (owner, expected) in self.owners.lock().iter_mut() {
            let over = expected.answered.is_some_and(|answered| answered <= began);
            if over && expected.creations > 0 {
                expected.creations = 0;
                woken.push(owner.clone());
            }
        }
        woken
    }

    /// The owner is gone.
    pub fn forget(&self, owner: &Key) {
        self.owners.lock().remove(owner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_ends_the_wait_for_what_came_and_went_unseen() {
        let owner = Key::new("shop", "web");
        let expectations = Expectations::default();
        let early = Instant::now();
        expectations.expect(&owner, 2, ["uid".to_owned()]);
        assert!(expectations.relisted(Instant::now()).is_empty());
        expectations.answered(&owner);
        assert!(expectations.relisted(early).is_empty());
        assert_eq!(
            expectations.relisted(Instant::now()),
            std::slice::from_ref(&owner)
        );
        assert!(!expectations.satisfied(&owner), "the deletion is not seen");
        expectations.deletion_over(&owner, "uid");
        assert!(expectations.satisfied(&owner));
    }
}
