//! The configuration with which Redis runs under proxychains4. Pure text.
//!
//! proxychains makes each connect of Redis a blocking one, on its main thread: as long as it lasts
//! Redis answers nobody, neither clients nor the agent. A replica connects again each second while
//! it has no link, so that the time-outs here are the length of these pauses.

use std::fmt::Write as _;

/// To tailscaled's proxy on loopback, milliseconds. It takes a connection at once, or never will.
const CONNECT_MS: u32 = 400;
/// For each answer of the proxy, milliseconds; the second comes when the master is reached. Longer
/// than a first contact over a far relay takes (two round trips and a handshake), and together with
/// the connect shorter than the silence after which the agent calls Redis stuck: such a replica
/// would be taken for a dead one.
const READ_MS: u32 = 1500;

/// Content of the configuration file.
#[must_use]
pub fn text(socks_port: u16) -> String {
    let mut text = String::new();
    let lines = [
        // Without the second, each connection writes a line to the log of Redis.
        "strict_chain\nquiet_mode".to_owned(),
        // Names go to the proxy as they are: tailscaled alone knows them.
        "proxy_dns\nremote_dns_subnet 224".into(),
        format!("tcp_connect_time_out {CONNECT_MS}\ntcp_read_time_out {READ_MS}"),
        // What is on loopback is reached directly.
        "localnet 127.0.0.0/255.0.0.0".into(),
        format!("[ProxyList]\nsocks5 127.0.0.1 {socks_port}"),
    ];
    for line in lines {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::settings::Settings;
    use std::time::Duration;

    #[test]
    fn a_replica_in_vain_search_of_its_master_is_not_taken_for_stuck() {
        let pause = Duration::from_millis(u64::from(CONNECT_MS + READ_MS));
        assert!(pause < Settings::from_env().stuck_after);
        let text = text(1055);
        for line in
            ["strict_chain", "proxy_dns", "localnet 127.0.0.0/255.0.0.0", "tcp_read_time_out 1500"]
        {
            assert!(text.lines().any(|one| one == line), "{line}");
        }
        assert!(text.ends_with("[ProxyList]\nsocks5 127.0.0.1 1055\n"));
    }
}
