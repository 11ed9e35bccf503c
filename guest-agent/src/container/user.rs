//! Looks up `user[:group]` in an image's /etc/passwd and /etc/group, as the image's
//! author wrote it (OCI image-spec config.User): names or numbers.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use crate::resolve::read_in_root;

/// Longest passwd or group file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Groups of which the user is a member; empty when the group was named.
    pub additional_gids: Vec<u32>,
}

/// A user or group that the image does not know.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// No line for this user.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No line for this group.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// The files cannot be read.
    #[error("cannot read /etc/{file} of the image: {source}")]
    Read {
        /// passwd or group.
        file: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Looks `text` up in the tree below `root`.
///
/// # Errors
/// [`UserError`]. Numbers need no line in the files.
pub fn lookup(root: impl AsFd, text: &str) -> Result<Identity, UserError> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = read(&root, "passwd")?;
    let groups = read(&root, "group")?;
    identity(&passwd, &groups, user, group)
}

fn identity(
    passwd: &str,
    groups: &str,
    user: &str,
    group: Option<&str>,
) -> Result<Identity, UserError> {
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().map(fields).find(|entry| {
        entry.first() == Some(&user) || number.is_some() && parse(entry, 2) == number
    });
    let uid = entry
        .as_ref()
        .and_then(|entry| parse(entry, 2))
        .or(number)
        .ok_or_else(|| UserError::NoUser(user.to_owned()))?;
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        let gid = groups
            .lines()
            .map(fields)
            .find(|entry| entry.first() == Some(&group))
            .and_then(|entry| parse(&entry, 2))
            .or_else(|| group.parse().ok())
            .ok_or_else(|| UserError::NoGroup(group.to_owned()))?;
        return Ok(Identity {
            uid,
            gid,
            additional_gids: Vec::new(),
        });
    }
    let name = entry.as_ref().and_then(|entry| entry.first().copied());
    let gid = entry
        .as_ref()
        .and_then(|entry| parse(entry, 3))
        .unwrap_or(0);
    let is_member = |entry: &Vec<&str>| {
        name.is_some_and(|name| {
            entry
                .get(3)
                .is_some_and(|m| m.split(',').any(|m| m == name))
        })
    };
    let mut additional_gids: Vec<u32> = groups
        .lines()
        .map(fields)
        .filter(is_member)
        .filter_map(|entry| parse(&entry, 2))
        .filter(|member| *member != gid)
        .collect();
    additional_gids.dedup();
    Ok(Identity {
        uid,
        gid,
        additional_gids,
    })
}

fn fields(line: &str) -> Vec<&str> {
    line.trim().split(':').collect()
}

fn parse(entry: &[&str], field: usize) -> Option<u32> {
    entry.get(field).and_then(|text| text.parse().ok())
}

fn read(root: impl AsFd, file: &'static str) -> Result<String, UserError> {
    match read_in_root(root, &Path::new("/etc").join(file), MAX_FILE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(UserError::Read { file, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/false\n";
    const GROUPS: &str = "root:x:0:\nweb:x:33:\nlog:x:4:adm,web\nssl:x:9:web\n";

    fn ids(user: &str, group: Option<&str>) -> Option<(u32, u32, Vec<u32>)> {
        let identity = identity(PASSWD, GROUPS, user, group).ok()?;
        Some((identity.uid, identity.gid, identity.additional_gids))
    }

    #[test]
    fn name_brings_its_groups() {
        assert_eq!(ids("web", None), Some((33, 33, vec![4, 9])));
        assert_eq!(ids("33", None), Some((33, 33, vec![4, 9])));
    }

    #[test]
    fn explicit_group_is_the_only_one() {
        assert_eq!(ids("web", Some("ssl")), Some((33, 9, vec![])));
        assert_eq!(ids("0", Some("77")), Some((0, 77, vec![])));
    }

    #[test]
    fn number_without_entry_has_group_zero() {
        assert_eq!(ids("1234", None), Some((1234, 0, vec![])));
    }

    #[test]
    fn unknown_names_are_refused() {
        assert_eq!(ids("nobody", None), None);
        assert_eq!(ids("web", Some("nogroup")), None);
    }
}
