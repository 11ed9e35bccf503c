//! Which store: `embedded`, `embedded:FILE`, `etcd://...` or `etcds://...`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use hull_store::Store;
use hull_store::embedded::EmbeddedStore;
use hull_store::etcd::{EtcdConfig, EtcdStore};

/// The file of the embedded store, in the data directory.
const FILE: &str = "store.redb";

/// Where a store is.
#[derive(Debug, Clone)]
pub enum StoreAddress {
    /// In this file.
    Embedded(PathBuf),
    /// In this etcd.
    Etcd(EtcdConfig),
}

impl StoreAddress {
    /// `files` are CA, certificate and key, for etcd.
    pub fn parse(text: &str, files: [Option<PathBuf>; 3], data_dir: &Path) -> anyhow::Result<Self> {
        let [ca, cert, key] = files;
        let file = match text {
            "embedded" => data_dir.join(FILE),
            _ => match text.strip_prefix("embedded:") {
                Some("") => bail!("store {text:?} names no file"),
                Some(file) => std::path::absolute(file).context("current directory")?,
                None => {
                    let config = EtcdConfig::from_address(text, ca, cert, key)?;
                    return Ok(StoreAddress::Etcd(config));
                }
            },
        };
        if ca.is_some() || cert.is_some() || key.is_some() {
            bail!("store {text:?} is a file and takes no certificates");
        }
        Ok(StoreAddress::Embedded(file))
    }

    /// Whether several servers can use it at once.
    pub fn is_shared(&self) -> bool {
        matches!(self, StoreAddress::Etcd(_))
    }

    /// Opens the store; an embedded one is made when it is not there.
    pub async fn open(&self) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            StoreAddress::Embedded(path) => {
                let path = path.clone();
                let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path));
                Ok(Arc::new(opened.await?.context("open the store")?))
            }
            StoreAddress::Etcd(config) => {
                let store = EtcdStore::connect(config).await.context("open the store")?;
                Ok(Arc::new(store))
            }
        }
    }

    /// Opens a store that is there.
    pub async fn open_existing(&self) -> anyhow::Result<Arc<dyn Store>> {
        if let StoreAddress::Embedded(path) = self
            && !path.exists()
        {
            bail!("there is no store in {}", path.display());
        }
        self.open().await
    }

    /// Opens a store that takes over keys which were at `revision` elsewhere.
    pub async fn open_for_import(&self, revision: u64) -> anyhow::Result<Arc<dyn Store>> {
        match self {
            StoreAddress::Embedded(path) => {
                let path = path.clone();
                let created = tokio::task::spawn_blocking(move || {
                    EmbeddedStore::create_after(&path, revision)
                });
                Ok(Arc::new(created.await?.context("make the store")?))
            }
            StoreAddress::Etcd(_) => self.open().await,
        }
    }
}

impl std::fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreAddress::Embedded(path) => write!(f, "embedded:{}", path.display()),
            StoreAddress::Etcd(config) => {
                let scheme = if config.tls.is_some() {
                    "etcds"
                } else {
                    "etcd"
                };
                let endpoints: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
                write!(f, "{scheme}://{}", endpoints.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, ca: Option<&str>) -> anyhow::Result<StoreAddress> {
        StoreAddress::parse(text, [ca.map(Into::into), None, None], Path::new("/data"))
    }

    #[test]
    fn addresses_name_a_file_or_an_etcd() {
        for (text, ca, shown) in [
            ("embedded", None, "embedded:/data/store.redb"),
            ("embedded:/x/y", None, "embedded:/x/y"),
            ("etcd://a:1,b", None, "etcd://a:1,b:2379"),
            ("etcds://a", Some("/ca"), "etcds://a:2379"),
        ] {
            let address = parse(text, ca).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_shared(), shown.starts_with("etcd"));
        }
    }

    #[test]
    fn addresses_that_do_not_fit_are_refused() {
        assert!(parse("embedded:", None).is_err());
        let error = parse("embedded", Some("/ca")).unwrap_err().to_string();
        assert!(error.contains("takes no certificates"), "{error}");
        assert!(
            parse("redb", None)
                .unwrap_err()
                .to_string()
                .contains("etcd://")
        );
    }
}
