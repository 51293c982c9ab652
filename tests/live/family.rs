//! All processes that a program started, wherever they went, and what is left of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

const NAMESPACES: [&str; 4] = ["net", "mnt", "pid", "user"];

/// A program and its descendants. Nodes have an environment of their own, so the marker alone does
/// not find them.
pub struct Family {
    /// Part of the environment of the program.
    marker: String,
    ours: BTreeSet<PathBuf>,
    /// Number and start time: numbers are used again.
    members: BTreeSet<(u32, u64)>,
    namespaces: BTreeSet<PathBuf>,
}

/// One process as the kernel tells it.
struct Process {
    pid: u32,
    parent: u32,
    started: u64,
    name: String,
}

impl Family {
    /// The family of processes with `marker` in their environment.
    pub fn new(marker: &str) -> Self {
        Self {
            marker: marker.to_owned(),
            ours: namespaces(std::process::id()),
            members: BTreeSet::new(),
            namespaces: BTreeSet::new(),
        }
    }

    /// Takes down who is there now, and in which namespaces; returns how many.
    pub fn look(&mut self) -> usize {
        let all = processes();
        let mut found: BTreeSet<u32> =
            all.iter().filter(|p| self.marked(p.pid)).map(|p| p.pid).collect();
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|p| found.contains(&p.parent) && !found.contains(&p.pid))
                .map(|p| p.pid)
                .collect();
            if more.is_empty() {
                break;
            }
            found.extend(more);
        }
        for process in all.iter().filter(|p| found.contains(&p.pid)) {
            self.members.insert((process.pid, process.started));
            self.namespaces.extend(namespaces(process.pid).difference(&self.ours).cloned());
        }
        found.len()
    }

    /// Namespaces of its own.
    pub fn namespaces(&self) -> usize {
        self.namespaces.len()
    }

    /// Who is still there: with the marker, known from an earlier look, or in one of the family's
    /// namespaces.
    pub fn left(&self) -> Vec<String> {
        let belongs = |p: &Process| {
            self.marked(p.pid)
                || self.members.contains(&(p.pid, p.started))
                || !namespaces(p.pid).is_disjoint(&self.namespaces)
        };
        processes().into_iter().filter(belongs).map(|p| format!("{} {}", p.pid, p.name)).collect()
    }

    fn marked(&self, pid: u32) -> bool {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == self.marker.as_bytes())
    }
}

/// All processes but zombies, which hold nothing any more.
fn processes() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in brackets and may hold anything.
    let (name, rest) =
        (stat.get(stat.find('(')? + 1..stat.rfind(')')?)?, stat.get(stat.rfind(')')? + 2..)?);
    let fields: Vec<&str> = rest.split(' ').collect();
    let (state, parent, started) =
        (fields.first()?, fields.get(1)?.parse().ok()?, fields.get(19)?.parse().ok()?);
    (*state != "Z").then(|| Process { pid, parent, started, name: name.to_owned() })
}

fn namespaces(pid: u32) -> BTreeSet<PathBuf> {
    NAMESPACES
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok())
        .collect()
}
