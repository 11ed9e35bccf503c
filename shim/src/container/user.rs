//! Who a container's process is: numbers, from names in the image's own files.

use crate::error::Error;
use hull_cri_api::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

/// Resolved ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one among them.
    pub groups: Vec<u32>,
    /// Home directory, if the image knows one.
    pub home: Option<String>,
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        Some(Account {
            name: fields.first()?,
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields.get(5).copied().unwrap_or_default(),
        })
    })
}

/// Name, id and members of each group.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let members = fields
            .get(3)
            .map(|list| list.split(',').collect())
            .unwrap_or_default();
        Some((*fields.first()?, fields.get(2)?.parse().ok()?, members))
    })
}

/// Resolves the pod's request, or else the image's user.
pub fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    passwd: &str,
    group: &str,
) -> Result<ResolvedUser, Error> {
    let invalid = |text: String| Error::InvalidArgument(text);
    let id = |value: i64| {
        u32::try_from(value)
            .map_err(|_| invalid(format!("user or group id {value} is out of range")))
    };
    let has_user = security.run_as_user.is_some() || !security.run_as_username.is_empty();
    if security.run_as_group.is_some() && !has_user {
        return Err(invalid(
            "run_as_group is set without run_as_user".to_string(),
        ));
    }
    let (user_text, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    let wanted = if let Some(uid) = &security.run_as_user {
        id(uid.value)?.to_string()
    } else if !security.run_as_username.is_empty() {
        security.run_as_username.clone()
    } else {
        user_text.to_string()
    };
    let account = find_account(&wanted, passwd);
    let uid = match (&account, wanted.parse::<u32>()) {
        (_, Ok(uid)) => uid,
        (Some(account), _) => account.uid,
        (None, _) if wanted.is_empty() => 0,
        (None, _) => {
            return Err(invalid(format!(
                "the image's /etc/passwd has no user {wanted:?}"
            )));
        }
    };
    let gid = if let Some(gid) = &security.run_as_group {
        id(gid.value)?
    } else if let Some(name) = image_group.filter(|_| !has_user) {
        find_group(name, group)?
    } else {
        account.as_ref().map(|account| account.gid).unwrap_or(0)
    };
    let mut all = vec![gid];
    if security.supplemental_groups_policy != SupplementalGroupsPolicy::Strict as i32
        && let Some(account) = &account
    {
        for (_, gid, members) in groups(group) {
            if members.contains(&account.name) {
                all.push(gid);
            }
        }
    }
    for extra in &security.supplemental_groups {
        all.push(id(*extra)?);
    }
    all.sort_unstable();
    all.dedup();
    let home = account
        .map(|account| account.home.to_string())
        .filter(|home| !home.is_empty());
    Ok(ResolvedUser {
        uid,
        gid,
        groups: all,
        home,
    })
}

fn find_account<'a>(wanted: &str, passwd: &'a str) -> Option<Account<'a>> {
    let uid: Option<u32> = if wanted.is_empty() {
        Some(0)
    } else {
        wanted.parse().ok()
    };
    accounts(passwd).find(|account| match uid {
        Some(uid) => account.uid == uid,
        None => account.name == wanted,
    })
}

fn find_group(name: &str, group: &str) -> Result<u32, Error> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    groups(group)
        .find(|(found, _, _)| *found == name)
        .map(|(_, gid, _)| gid)
        .ok_or_else(|| {
            Error::InvalidArgument(format!("the image's /etc/group has no group {name:?}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hull_cri_api::v1::Int64Value;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nextra:x:50:web,other\n";

    fn resolved(image_user: &str, security: LinuxContainerSecurityContext) -> ResolvedUser {
        resolve(&security, image_user, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn names_and_numbers_of_the_image_are_resolved() {
        let web = resolved("web", Default::default());
        assert_eq!(
            (web.uid, web.gid, web.groups.as_slice()),
            (33, 34, &[34, 50][..])
        );
        assert_eq!(web.home.as_deref(), Some("/var/www"));
        assert_eq!(resolved("33:root", Default::default()).gid, 0);
        assert_eq!(
            resolved("", Default::default()).home.as_deref(),
            Some("/root")
        );
        assert_eq!(resolved("4711", Default::default()).gid, 0);
        assert!(resolve(&Default::default(), "nobody-here", PASSWD, GROUP).is_err());
    }

    #[test]
    fn the_pod_overrides_the_image() {
        let security = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 33 }),
            supplemental_groups: vec![7],
            ..Default::default()
        };
        assert_eq!(resolved("root:extra", security.clone()).groups, [7, 34, 50]);
        let strict = LinuxContainerSecurityContext {
            supplemental_groups_policy: SupplementalGroupsPolicy::Strict as i32,
            run_as_group: Some(Int64Value { value: 9 }),
            ..security
        };
        assert_eq!(resolved("root", strict).groups, [7, 9]);
        let group_only = LinuxContainerSecurityContext {
            run_as_group: Some(Int64Value { value: 9 }),
            ..Default::default()
        };
        assert!(resolve(&group_only, "", PASSWD, GROUP).is_err());
    }
}
