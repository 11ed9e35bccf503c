//! Configuration files that are read again when they change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use crate::server::Tasks;

/// How often a file is looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// A file, and which of its states was seen last.
pub struct Followed {
    path: PathBuf,
    seen: Option<State>,
}

/// When it was written, and its size in bytes.
type State = (SystemTime, u64);

impl Followed {
    /// The file as it is now.
    pub fn new(path: PathBuf) -> Self {
        let seen = state(&path);
        Followed { path, seen }
    }

    /// What `parse` makes of its text; errors name the file.
    pub fn read<T>(&self, parse: impl FnOnce(&str) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let path = self.path.display();
        let text = std::fs::read_to_string(&self.path).with_context(|| format!("read {path}"))?;
        parse(&text).with_context(|| path.to_string())
    }

    /// Hands every later text to `apply` until `shutdown`; one that it refuses is logged.
    pub fn follow(
        mut self,
        apply: impl Fn(&str) -> anyhow::Result<()> + Send + 'static,
        tasks: &mut Tasks,
        shutdown: &CancellationToken,
    ) {
        let stop = shutdown.clone();
        tasks.spawn(async move {
            let follow = async move {
                loop {
                    tokio::time::sleep(INTERVAL).await;
                    self.look(&apply);
                }
            };
            stop.run_until_cancelled(follow).await;
            Ok(())
        });
    }

    fn look(&mut self, apply: &impl Fn(&str) -> anyhow::Result<()>) {
        let now = state(&self.path);
        if now == self.seen {
            return;
        }
        self.seen = now;
        match self.read(apply) {
            Ok(()) => tracing::info!(path = %self.path.display(), "configuration read again"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "configuration stays as it was");
            }
        }
    }
}

fn state(path: &Path) -> Option<State> {
    let metadata = path.metadata().ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let parse = |text: &str| text.trim().parse::<u32>().context("no number");
        std::fs::write(&path, "one").unwrap();
        let error = Followed::new(path.clone()).read(parse).unwrap_err();
        assert!(format!("{error:#}").contains("config: no number"));

        std::fs::write(&path, "1").unwrap();
        let mut file = Followed::new(path.clone());
        let (held, taken) = (Cell::new(file.read(parse).unwrap()), Cell::new(0));
        let apply = |text: &str| {
            taken.set(taken.get() + 1);
            held.set(parse(text)?);
            Ok(())
        };
        file.look(&apply);
        assert_eq!(taken.get(), 0, "nothing has changed");
        for (text, then) in [("22", 22), ("three", 22), ("", 22), ("4444", 4444)] {
            std::fs::write(&path, text).unwrap();
            file.look(&apply);
            file.look(&apply);
            assert_eq!(held.get(), then, "{text:?}");
        }
        assert_eq!(taken.get(), 4, "each change once");
        std::fs::remove_file(&path).unwrap();
        file.look(&apply);
        assert_eq!(held.get(), 4444);
    }
}
