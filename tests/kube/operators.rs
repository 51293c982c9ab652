//! Several operators of one market and one apiserver, each a process of its own.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::stage::{PROGRAM, Stage};

/// An operator process.
pub struct Operator {
    pub process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Operator {
    /// Starts one with the settings of the stage, and a socket of its own.
    pub fn start(stage: &Stage, dir: &Path, name: &str) -> Self {
        let socket = dir.join(format!("{name}.sock"));
        let settings = std::fs::read_to_string(stage.local.config()).unwrap();
        let api = format!("api: {{ socket: {} }}", socket.display());
        let line =
            |line: &str| if line.starts_with("api:") { api.clone() } else { line.to_owned() };
        let settings: Vec<String> = settings.lines().map(line).collect();
        let file = dir.join(format!("{name}.yaml"));
        std::fs::write(&file, settings.join("\n")).unwrap();
        let log = dir.join(format!("{name}.log"));
        let out = std::fs::File::create(&log).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["operator", "--config"]).arg(&file).env("HOSTNAME", name);
        command.stdin(Stdio::null()).stdout(out.try_clone().unwrap()).stderr(out);
        let process = command.kill_on_drop(true).spawn().unwrap();
        Self { process, socket, log }
    }

    /// Whoever asks the operator of the stage asks this one from now on.
    pub fn is_asked(&self, stage: &Stage) {
        let _ = std::fs::remove_file(stage.local.socket());
        symlink(&self.socket, stage.local.socket()).unwrap();
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
