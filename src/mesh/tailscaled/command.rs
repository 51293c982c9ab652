//! How tailscaled is started and logged in: the command lines that nodes and the operator share.
//! Pure.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::process::Program;

/// Bytes that tailscaled may take before its garbage collector works all the time.
const MEMORY_LIMIT: &str = "GOMEMLIMIT";

/// Added to tailscaled's environment. Without the limit it grows to half a gigabyte under bulk
/// traffic; without keepalive it keeps dead connections for hours.
pub const DAEMON_ENV: [(&str, &str); 3] = [
    (MEMORY_LIMIT, "100MiB"),
    ("TS_NETSTACK_KEEPALIVE_IDLE", "60s"),
    ("TS_NETSTACK_KEEPALIVE_INTERVAL", "15s"),
];

/// A call of `tailscale` ends within this: a login gives up by itself after 30 s.
pub const CALL_LIMIT: Duration = Duration::from_secs(40);

/// The flag that names its SOCKS5 proxy.
pub const SOCKS5_FLAG: &str = "--socks5-server=";

/// A tailscaled that needs no network device and no privilege.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    /// Its state; kept, it stays the same device.
    pub state_dir: &'a Path,
    /// Unix socket on which it is to serve its LocalAPI.
    pub socket: &'a Path,
    /// Its SOCKS5 proxy.
    pub socks5: SocketAddr,
}

impl Daemon<'_> {
    /// Arguments of `tailscaled`.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let arguments = [
            "--tun=userspace-networking".to_owned(),
            format!("{SOCKS5_FLAG}{}", self.socks5),
            format!("--statedir={}", self.state_dir.display()),
            format!("--socket={}", self.socket.display()),
            "--no-logs-no-support".to_owned(),
        ];
        arguments.into_iter().map(Into::into).collect()
    }

    /// The `tailscaled` at `path` with these arguments and its environment.
    #[must_use]
    pub fn program(&self, path: &Path) -> Program {
        Program {
            program: path.to_owned(),
            args: self.arguments(),
            env: DAEMON_ENV.map(|(name, value)| (name.to_owned(), value.into())).to_vec(),
            ..Program::default()
        }
    }

    /// The same, where it may take so many bytes: each connection takes some 80 KiB of them.
    #[must_use]
    pub fn program_with(&self, path: &Path, memory: u64) -> Program {
        let mut program = self.program(path);
        for (_, value) in program.env.iter_mut().filter(|(name, _)| name == MEMORY_LIMIT) {
            *value = format!("{memory}B").into();
        }
        program
    }
}

/// A login of a tailscaled that runs.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// LocalAPI of the tailscaled that shall log in.
    pub socket: &'a Path,
    /// Control server, when it is not Tailscale's own.
    pub login_server: Option<&'a str>,
    /// File with the auth key: argv is open to everybody on the machine. None when the state of an
    /// earlier login is enough.
    pub key_file: Option<&'a Path>,
    /// Host name asked for.
    pub hostname: &'a str,
}

impl Login<'_> {
    /// Arguments of `tailscale`. It ends by itself after 30 s.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments = vec![format!("--socket={}", self.socket.display()), "up".to_owned()];
        arguments.extend(self.login_server.map(|server| format!("--login-server={server}")));
        arguments.extend(self.key_file.map(|file| format!("--auth-key=file:{}", file.display())));
        arguments.extend([
            format!("--hostname={}", self.hostname),
            "--accept-dns=true".to_owned(),
            "--timeout=30s".to_owned(),
        ]);
        arguments.into_iter().map(Into::into).collect()
    }

    /// The `tailscale` at `path` with these arguments.
    #[must_use]
    pub fn program(&self, path: &Path) -> Program {
        Program { program: path.to_owned(), args: self.arguments(), ..Program::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_the_memory_that_it_may_take() {
        let socks5 = SocketAddr::from(([127, 0, 0, 1], 1055));
        let daemon = Daemon { state_dir: Path::new("/d"), socket: Path::new("/s"), socks5 };
        let limits = |program: Program| {
            let env = program.env.into_iter();
            env.filter(|(name, _)| name == MEMORY_LIMIT).map(|(_, v)| v).collect::<Vec<_>>()
        };
        assert_eq!(limits(daemon.program(Path::new("/t"))), ["100MiB"]);
        assert_eq!(limits(daemon.program_with(Path::new("/t"), 1 << 28)), ["268435456B"]);
    }

    #[test]
    fn a_key_is_named_by_its_file_and_left_out_where_the_state_is_enough() {
        let login = Login {
            socket: Path::new("/s"),
            login_server: Some("http://c"),
            key_file: Some(Path::new("/k")),
            hostname: "h",
        };
        let with = [
            "--socket=/s",
            "up",
            "--login-server=http://c",
            "--auth-key=file:/k",
            "--hostname=h",
            "--accept-dns=true",
            "--timeout=30s",
        ];
        assert_eq!(login.arguments(), with);
        let without = Login { login_server: None, key_file: None, ..login };
        assert_eq!(
            without.arguments(),
            ["--socket=/s", "up", "--hostname=h", "--accept-dns=true", "--timeout=30s"]
        );
    }

    #[test]
    fn the_daemon_needs_no_device() {
        let daemon = Daemon {
            state_dir: Path::new("/d"),
            socket: Path::new("/s"),
            socks5: "127.0.0.1:1055".parse().unwrap(),
        };
        let expected = [
            "--tun=userspace-networking",
            "--socks5-server=127.0.0.1:1055",
            "--statedir=/d",
            "--socket=/s",
            "--no-logs-no-support",
        ];
        assert_eq!(daemon.arguments(), expected);
    }
}
