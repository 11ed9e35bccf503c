//! Keeps one kernel table as its [`Table`] says: changes while that works, the whole table at the
//! start, after a failure, and when somebody else took it away.

use std::time::Instant;

use crate::metrics::{Metrics, SyncLabels};
use crate::nft::{Nft, NftError, Table};

/// A table and whether the kernel has it.
pub struct Synced {
    /// What the kernel is to have.
    pub table: Table,
    family: &'static str,
    /// A chain that is always there.
    witness: &'static str,
    installed: bool,
}

impl Synced {
    /// A table that the kernel has not been told of. `witness` names a chain of its frame.
    pub fn new(table: Table, family: &'static str, witness: &'static str) -> Self {
        Synced {
            table,
            family,
            witness,
            installed: false,
        }
    }

    /// Tells the kernel what changed. A refused change is followed by the whole table, at once.
    ///
    /// # Errors
    /// [`NftError`] of the whole table. Nothing is lost: the next call tries again.
    pub async fn sync(&mut self, nft: &Nft, metrics: &Metrics) -> Result<(), NftError> {
        if self.installed {
            let Some(change) = self.table.transaction() else {
                return Ok(());
            };
            match self.apply(nft, metrics, "change", &change).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(
                        table = self.table.id(),
                        %error,
                        "change refused; the whole table is written"
                    );
                    self.installed = false;
                }
            }
        }
        let whole = self.table.replacement();
        self.apply(nft, metrics, "replacement", &whole).await?;
        self.installed = true;
        Ok(())
    }

    /// Writes the whole table at the next sync.
    pub fn invalidate(&mut self) {
        self.installed = false;
    }

    /// Whether somebody else took the table away; the next sync then writes it again.
    ///
    /// # Errors
    /// [`NftError`] when nft cannot be run.
    pub async fn vanished(&mut self, nft: &Nft) -> Result<bool, NftError> {
        if !self.installed || nft.has_chain(&self.table.id(), self.witness).await? {
            return Ok(false);
        }
        self.installed = false;
        Ok(true)
    }

    async fn apply(
        &mut self,
        nft: &Nft,
        metrics: &Metrics,
        mode: &'static str,
        transaction: &str,
    ) -> Result<(), NftError> {
        let started = Instant::now();
        let outcome = nft.apply(transaction).await;
        let seconds = started.elapsed().as_secs_f64();
        let labels = SyncLabels {
            table: self.family,
            mode,
            outcome: if outcome.is_ok() { "ok" } else { "error" },
        };
        metrics.sync_seconds.get_or_create(&labels).observe(seconds);
        outcome?;
        tracing::debug!(
            table = self.table.id(),
            mode,
            bytes = transaction.len(),
            seconds,
            "table written"
        );
        self.table.commit();
        Ok(())
    }
}
