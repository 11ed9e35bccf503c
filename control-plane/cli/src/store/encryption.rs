//! The file that says what is encrypted at rest, read at the start and whenever it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hull_api::Registry;
use hull_store::Store;
use hull_store::encryption::{EncryptedStore, Rules};
use tokio_util::sync::CancellationToken;

use crate::server::Tasks;

/// How often the file is looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Reads the file.
pub fn rules(path: &Path) -> anyhow::Result<Rules> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Rules::parse(&text, prefixes).with_context(|| path.display().to_string())
}

/// The keys' prefixes of a resource: `secrets`, `deployments.apps`, `*.` (all of the core group),
/// `*.apps`, `*.*`. One that is not built in is taken for a custom resource's.
fn prefixes(resource: &str) -> Vec<String> {
    if resource == "*.*" {
        return vec!["/registry/".into()];
    }
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let mut found: Vec<String> = Registry::get()
        .kinds()
        .iter()
        .filter(|kind| kind.group == group && (plural == "*" || kind.plural == plural))
        .map(|kind| kind.prefix(""))
        .collect();
    if found.is_empty() && group.contains('.') {
        found.push(match plural {
            "*" => format!("/registry/{group}/"),
            plural => format!("/registry/{group}/{plural}/"),
        });
    }
    found.sort();
    found.dedup();
    found
}

/// The store with the file's rules above it, which follow the file until `shutdown`.
pub fn encrypted(
    inner: Arc<dyn Store>,
    path: PathBuf,
    tasks: &mut Tasks,
    shutdown: &CancellationToken,
) -> anyhow::Result<Arc<dyn Store>> {
    let modified = modified(&path);
    let store = Arc::new(EncryptedStore::new(inner, rules(&path)?));
    let (followed, stop) = (store.clone(), shutdown.clone());
    tasks.spawn(async move {
        stop.run_until_cancelled(follow(followed, path, modified))
            .await;
        Ok(())
    });
    Ok(store)
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    path.metadata()
        .and_then(|metadata| metadata.modified())
        .ok()
}

async fn follow(
    store: Arc<EncryptedStore>,
    path: PathBuf,
    mut seen: Option<std::time::SystemTime>,
) {
    loop {
        tokio::time::sleep(RELOAD_INTERVAL).await;
        let now = modified(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match rules(&path) {
            Ok(rules) => {
                store.replace_rules(rules);
                tracing::info!(path = %path.display(), "encryption configuration read again");
            }
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "encryption goes on as before");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_the_keys_that_the_api_server_gives_them() {
        for (resource, prefix) in [
            ("secrets", "/registry/secrets/"),
            ("deployments.apps", "/registry/deployments/"),
            ("*.*", "/registry/"),
            ("widgets.example.com", "/registry/example.com/widgets/"),
        ] {
            assert_eq!(prefixes(resource), [prefix]);
        }
        assert!(prefixes("*.").contains(&"/registry/configmaps/".to_owned()));
        assert!(prefixes("*.apps").len() > 3);
        assert!(prefixes("nopes").is_empty());
    }
}
