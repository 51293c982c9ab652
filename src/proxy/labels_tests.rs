//! What a client says of itself, and asks of its own connection, through the proxy and as a user of
//! whom the manifest says nothing.

use super::servers::{Servers, ask};
use crate::api::types::User;

#[tokio::test]
async fn a_client_tells_its_name_and_library_as_a_default_user_and_they_go_with_it() {
    let mut servers = Servers::start().await;
    let rules = User::default_rules();
    for node in &servers.nodes {
        let user = ["ACL", "SETUSER", "app", "on", ">secret"].map(str::to_owned).into_iter();
        let words: Vec<String> = user.chain(rules.split(' ').map(str::to_owned)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        assert_eq!(ask(node, &words).await, "+OK\r\n");
    }
    let mut client = servers.connect(None).await;
    let hello = ["HELLO", "3", "AUTH", "app", "secret", "SETNAME", "mine"];
    assert!(client.ask(&hello).await.starts_with('%'));
    for words in [
        &["CLIENT", "SETINFO", "LIB-NAME", "redis-py"][..],
        &["CLIENT", "SETINFO", "LIB-VER", "8.1.0"],
        &["CLIENT", "SETNAME", "ours"],
    ] {
        assert_eq!(client.ask(words).await, "+OK\r\n", "{words:?}");
    }
    for told in [false, true] {
        let port = servers.master().port;
        assert_eq!(client.ask(&["CLIENT", "GETNAME"]).await, "$4\r\nours\r\n");
        let id = client.ask(&["CLIENT", "ID"]).await;
        let id = id.trim_start_matches(':').trim_end().to_owned();
        for list in [&["CLIENT", "LIST"][..], &["CLIENT", "LIST", "ID", &id], &["CLIENT", "INFO"]] {
            let all = client.ask(list).await;
            let own =
                all.lines().find(|line| line.contains(&format!("id={id} "))).expect("its own");
            assert!(own.contains(" name=ours ") && own.contains("user=app"), "{own}");
        }
        assert!(client.ask(&["HELLO"]).await.starts_with('%'));
        assert_eq!(client.ask(&["ACL", "WHOAMI"]).await, "$3\r\napp\r\n");
        // What is not the application's is refused as Redis refuses it, and ends nothing.
        assert!(client.ask(&["CLIENT", "NO-EVICT", "ON"]).await.starts_with("-NOPERM "));
        servers.switch(told).await;
        assert_ne!(servers.master().port, port);
        while client.ask(&["ROLE"]).await.contains("slave") {}
    }
    assert_eq!(client.ask(&["CLIENT", "GETNAME"]).await, "$4\r\nours\r\n");
}
