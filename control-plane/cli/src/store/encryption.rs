//! The file that says what is encrypted at rest, read at the start and whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;

use hull_api::Registry;
use hull_store::Store;
use hull_store::encryption::{EncryptedStore, Rules};
use tokio_util::sync::CancellationToken;

use crate::{follow::Followed, server::Tasks};

/// Reads the text of the file.
pub fn rules(text: &str) -> anyhow::Result<Rules> {
    Ok(Rules::parse(text, prefixes)?)
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
    let file = Followed::new(path);
    let store = Arc::new(EncryptedStore::new(inner, file.read(rules)?));
    let replaced = store.clone();
    let replace = move |text: &str| {
        replaced.replace_rules(rules(text)?);
        Ok(())
    };
    file.follow(replace, tasks, shutdown);
    Ok(store)
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
