//! The agent's block in the hosts file. The file is a bind mount in a container: it is rewritten in
//! place, never renamed.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::mesh::outside::dns_name;

const BEGIN: &str = "# akash-redis: begin";
const END: &str = "# akash-redis: end";
/// A hosts file longer than this is not one.
const LONGEST: u64 = 1024 * 1024;

/// The hosts file.
#[derive(Clone, Debug)]
pub struct Hosts {
    path: PathBuf,
}

impl Hosts {
    /// The file at this path.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Makes these the only entries of the agent; other lines stay as they are.
    ///
    /// # Errors
    /// Also when one of them is no DNS name: it would be a line of its own.
    pub fn set(&self, entries: &[(Ipv4Addr, &str)]) -> std::io::Result<()> {
        if let Some((_, name)) = entries.iter().find(|(_, name)| dns_name(name).is_none()) {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("{name:?} is not the name of a node"),
            ));
        }
        let mut file = File::options().read(true).write(true).open(&self.path)?;
        let mut text = String::new();
        (&mut file).take(LONGEST).read_to_string(&mut text)?;
        let new = with_entries(&text, entries);
        if new == text {
            return Ok(());
        }
        // Our block is at the end: other names resolve while it is being written.
        file.rewind()?;
        file.write_all(new.as_bytes())?;
        file.set_len(u64::try_from(new.len()).unwrap_or(LONGEST))
    }
}

fn with_entries(text: &str, entries: &[(Ipv4Addr, &str)]) -> String {
    let mut inside = false;
    let mut new = String::new();
    for line in text.lines() {
        match line {
            BEGIN => inside = true,
            END => inside = false,
            _ if inside => {}
            _ => {
                new.push_str(line);
                new.push('\n');
            }
        }
    }
    if !entries.is_empty() {
        let lines: Vec<String> = entries.iter().map(|(ip, name)| format!("{ip} {name}")).collect();
        new.push_str(&[BEGIN, &lines.join("\n"), END, ""].join("\n"));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn only_the_own_block_changes_and_the_file_stays_the_same_inode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "127.0.0.1 localhost\n::1 ip6-localhost\n").unwrap();
        let inode = std::fs::metadata(&path).unwrap().ino();
        let hosts = Hosts::new(path.clone());
        hosts.set(&[(Ipv4Addr::new(127, 0, 1, 2), "a-long-name.mesh.test")]).unwrap();
        hosts.set(&[(Ipv4Addr::new(127, 0, 1, 3), "b.mesh.test")]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "127.0.0.1 localhost\n::1 ip6-localhost\n# akash-redis: begin\n127.0.1.3 b.mesh.test\n# akash-redis: end\n"
        );
        for forged in ["a.test\n6.6.6.6 registry.example", "a.test # x", ""] {
            assert!(hosts.set(&[(Ipv4Addr::new(127, 0, 1, 4), forged)]).is_err(), "{forged:?}");
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        hosts.set(&[]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "127.0.0.1 localhost\n::1 ip6-localhost\n"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), inode);
    }
}
