//! Volumes of a workload: each a file system in memory, as large as its manifest says, that can run
//! full or become read-only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{StatVfsMountFlags, statvfs};

use super::logs::Log;
use crate::devnet::tool;
use crate::sdl::canonical::Service;

/// Holds the size that a volume has while it is not full.
const SIZES: &str = "sizes";
/// The least that a file system in memory can have; 0 stands for no limit.
const PAGE: u64 = 4096;

/// Volumes as `name:/mountpoint`; a mount point is one new directory below the root.
pub fn list(service: &Service) -> Result<String, String> {
    let plain = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    let mounts = service.params.iter().flat_map(|params| params.storage.iter().flatten());
    let list: Result<Vec<String>, String> = mounts
        .map(|mount| match mount.mount.strip_prefix('/') {
            Some(name) if plain(name) && plain(&mount.name) => Ok(format!("{}:{}", mount.name, mount.mount)),
            _ => Err(format!(
                "the volume {} cannot be mounted at {}: this market mounts at one directory below / only",
                mount.name, mount.mount
            )),
        })
        .collect();
    Ok(list?.join(" "))
}

/// Makes the volumes below `dir`, once. Where none can be mounted they are directories, without a
/// limit.
pub async fn mount(dir: &Path, service: &Service, log: &Log) {
    let sizes = service.resources.storage.iter().flatten();
    let mounts = service.params.iter().flat_map(|params| params.storage.iter().flatten());
    for mount in mounts {
        let volume = sizes.clone().find(|volume| volume.name == mount.name);
        let size = volume.and_then(|volume| volume.size.val.parse::<u64>().ok()).unwrap_or(0);
        let at = dir.join(&mount.name);
        if let Err(error) = fs::create_dir_all(&at) {
            log.add(&format!("container | the volume {} cannot be made ({error})", mount.name));
            continue;
        }
        let options = format!("mode=755,size={size}");
        let at = at.to_string_lossy().into_owned();
        let made = tool::run("mount", &["-t", "tmpfs", "-o", &options, "volume", &at]).await;
        if let Err(error) = made {
            log.add(&format!("container | the volume {} has no limit: {error}", mount.name));
        }
    }
}

/// Takes them away with what they hold.
pub async fn unmount(dir: &Path) {
    for at in volumes(dir) {
        // Where none could be mounted there is nothing to take away. Containers that outlive their
        // lease have it among their own mounts.
        let _ = tool::run("umount", &["--lazy", &at.to_string_lossy()]).await;
    }
}

/// Leaves volumes no more room than they take, or gives it back; whether there is one.
pub fn set_full(dir: &Path, full: bool) -> bool {
    volumes(dir).iter().filter(|at| resize(dir, at, full).is_some()).count() > 0
}

/// Whether they were left without room.
pub fn is_full(dir: &Path) -> bool {
    volumes(dir).iter().any(|at| kept(dir, at).is_file())
}

/// Has volumes take no more writes, or take them again; whether there are some, and all of them do.
/// Nothing becomes read-only that somebody writes to.
pub fn set_read_only(dir: &Path, read_only: bool) -> bool {
    let (all, how) = (volumes(dir), if read_only { "ro" } else { "rw" });
    !all.is_empty() && all.iter().all(|at| remount(at, how))
}

/// Whether one of them takes no writes.
pub fn is_read_only(dir: &Path) -> bool {
    let flags = |at: &PathBuf| statvfs(at).map(|found| found.f_flag);
    volumes(dir).iter().any(|at| flags(at).is_ok_and(|f| f.contains(StatVfsMountFlags::RDONLY)))
}

/// Whether it was done.
fn remount(at: &Path, how: &str) -> bool {
    let mut command = Command::new("mount");
    command.args(["-o", &format!("remount,{how}")]).arg(at).stdin(Stdio::null());
    command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Where the usual size of a volume is kept while it is full.
fn kept(dir: &Path, at: &Path) -> PathBuf {
    dir.with_file_name(SIZES).join(at.file_name().unwrap_or_default())
}

fn resize(dir: &Path, at: &Path, full: bool) -> Option<()> {
    let kept = kept(dir, at);
    let size = if full {
        let now = statvfs(at).ok()?;
        if !kept.is_file() {
            fs::create_dir_all(kept.parent()?).ok()?;
            fs::write(&kept, (now.f_blocks * now.f_frsize).to_string()).ok()?;
        }
        ((now.f_blocks - now.f_bfree) * now.f_frsize).max(PAGE)
    } else {
        let usual = fs::read_to_string(&kept).ok()?.parse().ok()?;
        fs::remove_file(&kept).ok()?;
        usual
    };
    let done = remount(at, &format!("size={size}"));
    if full && !done {
        // The next attempt finds it as it is.
        let _ = fs::remove_file(&kept);
    }
    done.then_some(())
}

fn volumes(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}
