//! The file: a redb database with the newest value of every key and the revision.

use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

use super::index::{Entry, Version};
use crate::{Revision, StoreError};

/// Key to (create revision, mod revision, value).
const OBJECTS: TableDefinition<&str, (u64, u64, &[u8])> = TableDefinition::new("objects");
/// Key to its end in milliseconds since 1970, for keys that end by themselves. Files of before
/// may lack it.
const ENDS: TableDefinition<&str, u64> = TableDefinition::new("ends");
/// Facts about the whole store.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const META_REVISION: &str = "revision";
const META_FORMAT: &str = "format";
/// Version of the tables' layout.
const FORMAT: u64 = 1;

/// Pages that redb keeps in memory. Reads never go to the file, so this only serves writes.
const CACHE_BYTES: usize = 32 << 20;

/// Why the file could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    /// The database failed.
    #[error("{0}")]
    Database(#[source] Box<redb::Error>),
    /// The operating system failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Written by a newer version of this program.
    #[error("the file has layout version {0}, this program knows {FORMAT}")]
    Format(u64),
    /// The file is at a revision that this process did not write.
    #[error("the file is at revision {found}, expected {expected}: it was changed by someone else")]
    Foreign { found: Revision, expected: Revision },
    /// A repair was tried a moment ago and failed.
    #[error("the file could not be reopened: {0}")]
    StillBroken(String),
}

/// redb has an error type per step; this gathers them.
fn database(error: impl Into<redb::Error>) -> DiskError {
    match error.into() {
        redb::Error::Io(error) => DiskError::Io(error),
        error => DiskError::Database(Box::new(error)),
    }
}

impl DiskError {
    pub(super) fn while_doing(self, doing: &'static str) -> StoreError {
        StoreError::Io {
            doing,
            source: Box::new(self),
        }
    }
}

/// What the file had when it was opened.
pub(super) struct Loaded {
    pub revision: Revision,
    pub entries: Vec<Entry>,
}

/// One key's new state.
pub(super) struct Record<'a> {
    pub key: &'a str,
    pub version: &'a Version,
    /// Its state before this commit ended by itself, or may have.
    pub had_end: bool,
}

/// Puts what was written to the file on the disk.
pub(super) type SyncData = Arc<dyn Fn(&File) -> io::Result<()> + Send + Sync>;

/// The open file. The lock on it is held until this is dropped, also while the database on it is
/// being reopened.
pub(super) struct Disk {
    file: File,
    sync_data: SyncData,
    database: Option<Database>,
}

impl Disk {
    /// A new file begins at revision `first`.
    pub(super) fn open(path: &Path, first: Revision) -> Result<(Self, Loaded), StoreError> {
        Self::open_with(path, first, Arc::new(File::sync_data))
    }

    /// The same, with another way to sync.
    pub(super) fn open_with(
        path: &Path,
        first: Revision,
        sync_data: SyncData,
    ) -> Result<(Self, Loaded), StoreError> {
        let file = lock(path)?;
        let mut disk = Disk {
            file,
            sync_data,
            database: None,
        };
        let open = |disk: &mut Disk| {
            disk.open_database(first)?;
            disk.load()
        };
        let loaded = open(&mut disk).map_err(|error| error.while_doing("opening the file"))?;
        Ok((disk, loaded))
    }

    /// Whether the database must be reopened before it can be used.
    pub(super) fn is_broken(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the database anew after a failure, and says at which revision it is.
    pub(super) fn reopen(&mut self) -> Result<Revision, DiskError> {
        self.open_database(0)
    }

    fn open_database(&mut self, first: Revision) -> Result<Revision, DiskError> {
        self.database = None;
        let backend = LockedFile {
            file: self.file.try_clone()?,
            sync_data: self.sync_data.clone(),
        };
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(self::database)?;
        let revision = prepare(&database, first)?;
        self.database = Some(database);
        Ok(revision)
    }

    /// Another handle of the file.
    pub(super) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives unused space of the file back to the file system.
    pub(super) fn shrink(&mut self) -> Result<(), DiskError> {
        let Some(database) = &mut self.database else {
            return Err(DiskError::StillBroken("it is not open".into()));
        };
        while database.compact().map_err(self::database)? {}
        Ok(())
    }

    /// Gives the database up; the lock stays.
    pub(super) fn close(&mut self) {
        self.database = None;
    }

    fn load(&self) -> Result<Loaded, DiskError> {
        let Some(database) = &self.database else {
            return Err(DiskError::StillBroken("it is not open".into()));
        };
        let read = database.begin_read().map_err(self::database)?;
        let meta = read.open_table(META).map_err(self::database)?;
        let revision = meta
            .get(META_REVISION)
            .map_err(self::database)?
            .map_or(0, |v| v.value());
        let objects = read.open_table(OBJECTS).map_err(self::database)?;
        let ends = match read.open_table(ENDS) {
            Ok(ends) => Some(ends),
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(self::database(error)),
        };
        let mut entries = Vec::new();
        for row in objects.iter().map_err(self::database)? {
            let (key, value) = row.map_err(self::database)?;
            let (create_revision, mod_revision, value) = value.value();
            let end = match &ends {
                Some(ends) => ends.get(key.value()).map_err(self::database)?,
                None => None,
            };
            entries.push(Entry {
                key: key.value().to_owned(),
                version: Version {
                    create_revision,
                    mod_revision,
                    value: Some(Bytes::copy_from_slice(value)),
                    end: end.map(|end| end.value()),
                },
            });
        }
        Ok(Loaded { revision, entries })
    }

    /// Writes all records and the revision, durably, or nothing. After an error the database must
    /// be reopened, and only then it is known whether it was written.
    pub(super) fn commit<'a>(
        &mut self,
        records: impl Iterator<Item = Record<'a>>,
        revision: Revision,
    ) -> Result<(), DiskError> {
        let Some(database) = self.database.take() else {
            return Err(DiskError::StillBroken("it is not open".into()));
        };
        let mut write = database.begin_write().map_err(self::database)?;
        write
            .set_durability(Durability::Immediate)
            .map_err(self::database)?;
        {
            let mut objects = write.open_table(OBJECTS).map_err(self::database)?;
            let mut ends = None;
            for record in records {
                let Record { key, version, .. } = record;
                if version.end.is_some() || record.had_end {
                    let ends = match &mut ends {
                        Some(ends) => ends,
                        none => none.insert(write.open_table(ENDS).map_err(self::database)?),
                    };
                    match version.end {
                        Some(end) => ends.insert(key, end),
                        None => ends.remove(key),
                    }
                    .map_err(self::database)?;
                }
                match &version.value {
                    Some(value) => objects
                        .insert(
                            key,
                            (version.create_revision, version.mod_revision, &value[..]),
                        )
                        .map_err(self::database)?,
                    None => objects.remove(key).map_err(self::database)?,
                };
            }
            let mut meta = write.open_table(META).map_err(self::database)?;
            meta.insert(META_REVISION, revision)
                .map_err(self::database)?;
        }
        write.commit().map_err(self::database)?;
        self.database = Some(database);
        Ok(())
    }
}

/// Opens the file and takes the lock that keeps a second process out.
fn lock(path: &Path) -> Result<File, StoreError> {
    let failed = |doing: &'static str, error: io::Error| {
        let error = io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        StoreError::Io {
            doing,
            source: Box::new(error),
        }
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)
            .map_err(|e| failed("creating the folder of the file", e))?;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(|error| failed("opening the file", error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
            path: PathBuf::from(path),
        }),
        Err(TryLockError::Error(error)) => Err(failed("locking the file", error)),
    }
}

/// The file holds secrets.
const FILE_MODE: u32 = 0o600;

/// Creates the tables of a new file, checks those of an old one.
fn prepare(database: &Database, first: Revision) -> Result<Revision, DiskError> {
    let existing = {
        let read = database.begin_read().map_err(self::database)?;
        match read.open_table(META) {
            Ok(meta) => {
                let format = meta
                    .get(META_FORMAT)
                    .map_err(self::database)?
                    .map(|v| v.value());
                let revision = meta
                    .get(META_REVISION)
                    .map_err(self::database)?
                    .map(|v| v.value());
                Some((format.unwrap_or(0), revision.unwrap_or(0)))
            }
            Err(redb::TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(self::database(error)),
        }
    };
    match existing {
        Some((FORMAT, revision)) => Ok(revision),
        Some((format, _)) => Err(DiskError::Format(format)),
        None => {
            let write = database.begin_write().map_err(self::database)?;
            {
                write.open_table(OBJECTS).map_err(self::database)?;
                let mut meta = write.open_table(META).map_err(self::database)?;
                meta.insert(META_FORMAT, FORMAT).map_err(self::database)?;
                meta.insert(META_REVISION, first).map_err(self::database)?;
            }
            write.commit().map_err(self::database)?;
            Ok(first)
        }
    }
}

/// A file whose lock is somebody else's business: redb's own backend would give the lock up
/// whenever the database is reopened.
struct LockedFile {
    file: File,
    sync_data: SyncData,
}

impl fmt::Debug for LockedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockedFile")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl StorageBackend for LockedFile {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        (self.sync_data)(&self.file)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.file.write_all_at(data, offset)
    }
}
