//! The store: what it holds, who uses it, and how images come and go.
//!
//! ```text
//! root/lock            flock of the process that has the store open
//! root/index.json      names and facts of every complete image
//! root/erofs/HEX.erofs one file per image, HEX being the digits of its id
//! root/spool/          half-done pulls; emptied by open()
//! ```

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use parking_lot::Mutex;
use tempfile::TempPath;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::config::{BLOBS_AT_ONCE, Limits, StoreConfig};
use crate::error::{OpenError, PullCause, PullError, RemoveError};
use crate::image::{FsUsage, Image};
use crate::index::{Index, LoadError, Record, sync_directory};
use crate::reference::ImageReference;
use crate::registry::{Registries, RegistryAuth};

/// The image store of one node. Clones share one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    paths: Paths,
    pub limits: Limits,
    pub registries: Registries,
    /// Places for blob downloads.
    pub download_slots: Arc<Semaphore>,
    state: Mutex<State>,
    /// Held while the index file is replaced; taken before `state`, never the other way round.
    writer: Mutex<()>,
    /// One lock per image id that is being downloaded and converted.
    conversions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    _lock: Flock<File>,
}

#[derive(Default)]
struct State {
    index: Index,
    /// Holders by image id.
    leases: HashMap<String, BTreeSet<String>>,
}

struct Paths {
    root: PathBuf,
    index: PathBuf,
    erofs: PathBuf,
    spool: PathBuf,
}

impl ImageStore {
    /// Opens the store, making its directory if it is not there, and removes what a crash left
    /// half done: spools, EROFS files that the index does not name, index entries without a file.
    ///
    /// # Errors
    /// [`OpenError`] when another process has the store open, the index cannot be understood, a
    /// registry's configuration is wrong, or the filesystem refuses.
    pub fn open(config: StoreConfig) -> Result<Self, OpenError> {
        let root = config.root;
        let paths = Paths {
            index: root.join("index.json"),
            erofs: root.join("erofs"),
            spool: root.join("spool"),
            root,
        };
        make_directory(&paths.root)?;
        let lock = lock_root(&paths.root)?;
        let registries = Registries::new(config.registries)?;
        let mut index = Index::load(&paths.index).map_err(|e| match e {
            LoadError::Io(source) => io_error("reading", &paths.index)(source),
            LoadError::Json(source) => OpenError::Index {
                path: paths.index.clone(),
                source,
            },
        })?;
        match fs::remove_dir_all(&paths.spool) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("emptying", &paths.spool)(e));
            }
            _ => {}
        }
        make_directory(&paths.erofs)?;
        make_directory(&paths.spool)?;
        clean(&paths, &mut index)?;
        info!(root = %paths.root.display(), images = index.images.len(), "image store open");
        Ok(Self {
            inner: Arc::new(Inner {
                paths,
                limits: config.limits,
                registries,
                download_slots: Arc::new(Semaphore::new(BLOBS_AT_ONCE)),
                state: Mutex::new(State {
                    index,
                    leases: HashMap::new(),
                }),
                writer: Mutex::new(()),
                conversions: Mutex::new(HashMap::new()),
                _lock: lock,
            }),
        })
    }

    /// Pulls an image: asks the registry what `reference` names now, downloads and converts it
    /// unless the store has it, and lets the reference name it. Concurrent pulls of one image
    /// download it once; each still asks the registry with its own credentials.
    ///
    /// Dropping the future stops the downloads and leaves nothing behind.
    ///
    /// # Errors
    /// [`PullError`] with the image, the registry and the cause.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<RegistryAuth>,
    ) -> Result<Image, PullError> {
        crate::pull::pull(self, reference, auth.unwrap_or_default()).await
    }

    /// The image that an id, a unique prefix of an id (12 digits or more), a tag or a digest
    /// reference names.
    pub fn get(&self, reference_or_id: &str) -> Option<Image> {
        let state = self.inner.state.lock();
        let id = resolve(&state.index, reference_or_id)?;
        self.inner.image(&state.index, &id)
    }

    /// All images, in the order of their ids.
    pub fn list(&self) -> Vec<Image> {
        let state = self.inner.state.lock();
        let ids = state.index.images.keys();
        ids.filter_map(|id| self.inner.image(&state.index, id))
            .collect()
    }

    /// Keeps an image from being removed until `holder` (a sandbox's or container's id) releases
    /// it. Taking the same lease twice is one lease. Leases are not kept over a restart: a
    /// restarted process takes those of the pods it adopts before it serves requests.
    ///
    /// `None` if the store has no such image.
    pub fn lease(&self, reference_or_id: &str, holder: &str) -> Option<Image> {
        let mut state = self.inner.state.lock();
        let id = resolve(&state.index, reference_or_id)?;
        let image = self.inner.image(&state.index, &id)?;
        state
            .leases
            .entry(id)
            .or_default()
            .insert(holder.to_owned());
        Some(image)
    }

    /// Gives up every lease of `holder`. One that holds none is no error.
    pub fn release(&self, holder: &str) {
        let mut state = self.inner.state.lock();
        state.leases.retain(|_, holders| {
            holders.remove(holder);
            !holders.is_empty()
        });
    }

    /// Removes what `reference_or_id` names. An id removes the image with all its names; a tag or
    /// digest removes that name, and the image with its last name. What is not there is removed
    /// already.
    ///
    /// # Errors
    /// [`RemoveError::InUse`] while the removal would delete a leased image.
    pub async fn remove(&self, reference_or_id: &str) -> Result<(), RemoveError> {
        let inner = Arc::clone(&self.inner);
        let name = reference_or_id.to_owned();
        let task = tokio::task::spawn_blocking(move || inner.remove(&name));
        task.await.unwrap_or_else(|e| {
            Err(RemoveError::Io {
                image: reference_or_id.to_owned(),
                source: io::Error::other(e),
            })
        })
    }

    /// What the store's directory takes on its filesystem. Layers of pulls under way are files
    /// without a name and are not counted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn usage(&self) -> io::Result<FsUsage> {
        let mut usage = FsUsage::default();
        add_usage(&self.inner.paths.root, &mut usage)?;
        Ok(usage)
    }

    /// The directory of the store, to ask its filesystem for its size.
    pub fn root(&self) -> &Path {
        &self.inner.paths.root
    }
}

impl Inner {
    /// Directory for half-done pulls, on the filesystem of the images.
    pub fn spool_directory(&self) -> &Path {
        &self.paths.spool
    }

    /// The lock under which image `id` is downloaded and converted.
    pub fn conversion_lock(&self, id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.conversions.lock();
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(id.to_owned()).or_default())
    }

    pub fn has(&self, id: &str) -> bool {
        self.state.lock().index.images.contains_key(id)
    }

    /// Takes a finished EROFS file into the store, under `reference`.
    pub fn commit(
        &self,
        id: &str,
        reference: &ImageReference,
        repo_digest: &str,
        converted: Option<(TempPath, Record)>,
    ) -> Result<Image, PullCause> {
        let _writer = self.writer.lock();
        let mut index = self.state.lock().index.clone();
        if let Some((file, record)) = converted {
            let target = self.erofs_path(id);
            file.persist(&target)
                .map_err(|e| e.error)
                .and_then(|()| sync_directory(&target))
                .map_err(|e| PullCause::store(format!("image file {}", target.display()), e))?;
            index.images.insert(id.to_owned(), record);
        }
        if !index.images.contains_key(id) {
            let reason = format!("image {id} was removed during its pull");
            return Err(PullCause::Internal(reason));
        }
        index.name(
            id,
            &reference.to_string(),
            reference.tag().is_some(),
            repo_digest,
        );
        if let Err(e) = index.save(&self.paths.index) {
            if !self.has(id) {
                let _ = fs::remove_file(self.erofs_path(id));
            }
            return Err(PullCause::store("the index", e));
        }
        let mut state = self.state.lock();
        state.index = index;
        self.image(&state.index, id)
            .ok_or_else(|| PullCause::Internal(format!("image {id} was removed during its pull")))
    }

    fn remove(&self, reference_or_id: &str) -> Result<(), RemoveError> {
        let _writer = self.writer.lock();
        let (id, before) = {
            let mut state = self.state.lock();
            let Some(id) = resolve(&state.index, reference_or_id) else {
                return Ok(());
            };
            let before = state.index.clone();
            let name = normal_name(&before, &id, reference_or_id);
            let mut after = before.clone();
            let gone = match name {
                Some(name) => after.unname(&id, &name),
                None => after.images.remove(&id).is_some(),
            };
            if let Some(holders) = state.leases.get(&id).filter(|_| gone) {
                let holders = holders.iter().cloned().collect();
                return Err(RemoveError::InUse { image: id, holders });
            }
            state.index = after;
            (id, before)
        };
        // From here on no lease of a removed image can be taken, since the index has lost it.
        let index = self.state.lock().index.clone();
        if let Err(source) = index.save(&self.paths.index) {
            self.state.lock().index = before;
            return Err(RemoveError::Io { image: id, source });
        }
        if index.images.contains_key(&id) {
            return Ok(());
        }
        match fs::remove_file(self.erofs_path(&id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RemoveError::Io { image: id, source })
            }
            _ => {
                info!(image = %id, "image removed");
                Ok(())
            }
        }
    }

    fn erofs_path(&self, id: &str) -> PathBuf {
        self.paths.erofs.join(erofs_file_name(id))
    }

    fn image(&self, index: &Index, id: &str) -> Option<Image> {
        let record = index.images.get(id)?;
        Some(Image {
            id: id.to_owned(),
            repo_tags: record.repo_tags.iter().cloned().collect(),
            repo_digests: record.repo_digests.iter().cloned().collect(),
            size_bytes: record.size_bytes,
            erofs_path: self.erofs_path(id),
            config: record.config.clone(),
            passwd: record.passwd.clone(),
            group: record.group.clone(),
        })
    }
}

fn erofs_file_name(id: &str) -> String {
    format!("{}.erofs", id.strip_prefix("sha256:").unwrap_or(id))
}

fn resolve(index: &Index, reference_or_id: &str) -> Option<String> {
    let found = index
        .resolve(reference_or_id)
        .or_else(|| index.resolve_prefix(reference_or_id));
    if let Some(id) = found {
        return Some(id.to_owned());
    }
    let reference: ImageReference = reference_or_id.parse().ok()?;
    index.resolve(&reference.to_string()).map(str::to_owned)
}

/// The normalised tag or digest that `given` is; `None` if it is an id.
fn normal_name(index: &Index, id: &str, given: &str) -> Option<String> {
    let record = index.images.get(id)?;
    let normal = given
        .parse::<ImageReference>()
        .ok()
        .map(|reference| reference.to_string())?;
    let names = [&record.repo_tags, &record.repo_digests, &record.references];
    names
        .iter()
        .any(|names| names.contains(&normal))
        .then_some(normal)
}

fn lock_root(root: &Path) -> Result<Flock<File>, OpenError> {
    let path = root.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("opening", &path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => OpenError::InUse {
            root: root.to_owned(),
        },
        errno => io_error("locking", &path)(errno.into()),
    })
}

/// Removes image files without an index entry and index entries without a whole image file.
fn clean(paths: &Paths, index: &mut Index) -> Result<(), OpenError> {
    let known: BTreeSet<String> = index.images.keys().map(|id| erofs_file_name(id)).collect();
    let entries = fs::read_dir(&paths.erofs).map_err(io_error("reading", &paths.erofs))?;
    for entry in entries {
        let entry = entry.map_err(io_error("reading", &paths.erofs))?;
        if entry
            .file_name()
            .to_str()
            .is_none_or(|name| !known.contains(name))
        {
            warn!(file = %entry.path().display(), "removing an image file that no image names");
            fs::remove_file(entry.path()).map_err(io_error("removing", &entry.path()))?;
        }
    }
    let before = index.images.len();
    index.images.retain(|id, record| {
        let path = paths.erofs.join(erofs_file_name(id));
        let whole = fs::metadata(&path).is_ok_and(|file| file.len() == record.size_bytes);
        if !whole {
            warn!(image = %id, "forgetting an image whose file is missing or cut short");
            let _ = fs::remove_file(&path);
        }
        whole
    });
    if index.images.len() != before {
        index
            .save(&paths.index)
            .map_err(io_error("writing", &paths.index))?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), OpenError> {
    fs::create_dir_all(path).map_err(io_error("making", path))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_owned();
    move |source| OpenError::Io {
        action,
        path,
        source,
    }
}

fn add_usage(path: &Path, usage: &mut FsUsage) -> io::Result<()> {
    /// Unit of `st_blocks`, whatever the filesystem's block size (stat(2)).
    const STAT_BLOCK_BYTES: u64 = 512;
    let metadata = match fs::symlink_metadata(path) {
        // A pull or removal that finishes meanwhile takes files away.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    usage.bytes += metadata.blocks() * STAT_BLOCK_BYTES;
    usage.inodes += 1;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            add_usage(&entry?.path(), usage)?;
        }
    }
    Ok(())
}
