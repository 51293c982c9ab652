//! Users of the container that programs run as instead of the agent's own.

use std::fs;
use std::path::{Path, PathBuf};

/// User and group id.
pub type Owner = (u32, u32);

/// The user of this name, when this is root and that user exists in this namespace.
#[must_use]
pub fn system_user(name: &str) -> Option<Owner> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = passwd
        .lines()
        .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?
        .split(':')
        .skip(2);
    let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let mapped = |file: &str, id: u32| fs::read_to_string(file).is_ok_and(|map| covers(&map, id));
    (mapped("/proc/self/uid_map", uid) && mapped("/proc/self/gid_map", gid)).then_some((uid, gid))
}

/// Gives a directory and all that is in it to a user. Files of an earlier start may be another
/// user's: images change.
pub fn give(dir: &Path, owner: Option<Owner>) -> std::io::Result<()> {
    if owner.is_none() {
        return Ok(());
    }
    for path in walk(dir)? {
        give_one(&path, owner)?;
    }
    give_one(dir, owner)
}

/// Gives one file or directory to a user.
pub fn give_one(path: &Path, owner: Option<Owner>) -> std::io::Result<()> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))
}

fn walk(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(walk(&entry.path())?);
        }
        found.push(entry.path());
    }
    Ok(found)
}

/// Whether an id exists in a user namespace with this map.
fn covers(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next())
        else {
            return false;
        };
        (first..first.saturating_add(count)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_user_namespace_with_root_alone_has_no_other_user() {
        assert!(covers("         0          0 4294967295\n", 102));
        assert!(!covers("         0       1000          1\n", 102));
    }

    #[test]
    fn a_name_is_not_the_beginning_of_another() {
        assert_eq!(system_user("roo"), None);
    }

    /// Only root can give to another user; anybody can give what is his to himself.
    #[test]
    fn a_directory_is_given_with_all_that_is_in_it() {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let owner = system_user("nobody").unwrap_or(own);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("deep/file"), "").unwrap();
        let paths = ["deep/file", "deep"].map(|path| dir.path().join(path));
        assert_eq!(walk(dir.path()).unwrap(), paths);
        give(dir.path(), Some(owner)).unwrap();
        for path in paths.iter().map(PathBuf::as_path).chain([dir.path()]) {
            assert_eq!(fs::metadata(path).unwrap().uid(), owner.0, "{}", path.display());
        }
    }
}
