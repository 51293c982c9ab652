//! A client on one end, Sentinel on the other.

use super::*;
use crate::announce::Signed;
use crate::model::announcement::{Announcement, Place, Replica};
use crate::model::time::UnixMs;
use tokio::io::DuplexStream;

const HASH_OF_SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

fn place(ordinal: u8) -> Place {
    Place {
        incarnation: format!("cache-{ordinal}-aaaa"),
        name: format!("cache-{ordinal}.mesh.test"),
        ip: format!("100.64.0.{}", ordinal + 1),
        port: 6379,
        region: None,
    }
}

fn word(master: u8, replicas: &[u8]) -> Arc<Word> {
    let replica = |n: &u8| Replica { place: place(*n), in_sync: *n != 2, lag_bytes: None };
    let said = Announcement {
        installation: "i".into(),
        cluster: "cache".into(),
        uid: "u".into(),
        epoch: u64::from(master) + 1,
        version: 1,
        at: UnixMs(1),
        master: place(master),
        replicas: replicas.iter().map(replica).collect(),
        names: false,
        changing: None,
        successor: None,
    };
    Arc::new(Word { said, signed: Signed { content: b"{}".to_vec(), signature: vec![7] } })
}

struct Client {
    stream: DuplexStream,
    word: watch::Sender<Option<Arc<Word>>>,
    _users: watch::Sender<Arc<Vec<SettingsUser>>>,
    subscribers: watch::Receiver<usize>,
}

impl Client {
    fn new(first: Option<Arc<Word>>) -> Self {
        let user = SettingsUser {
            name: "app".into(),
            password_sha256: vec![HASH_OF_SECRET.into()],
            rules: String::new(),
        };
        let (word, users) = (watch::Sender::new(first), watch::Sender::new(Arc::new(vec![user])));
        let subscribers = Subscribers::default();
        let number = subscribers.number();
        let desk = Desk {
            word: word.subscribe(),
            users: users.subscribe(),
            cluster: "cache".into(),
            own: "cache-1-aaaa".into(),
            subscribers,
        };
        let (stream, other) = tokio::io::duplex(64 * 1024);
        tokio::spawn(converse(other, desk, 7));
        Self { stream, word, _users: users, subscribers: number }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
    }

    /// Says these lines, and then nothing until it is asked again.
    async fn is_told(&mut self, lines: &str) {
        let expected = lines.replace(' ', "\r\n").replace('~', " ") + "\r\n";
        let mut read = vec![0; expected.len()];
        let read_all = timeout(Duration::from_mins(1), self.stream.read_exact(&mut read)).await;
        let text = String::from_utf8_lossy(&read).into_owned();
        assert!(matches!(read_all, Ok(Ok(_))), "only {text:?} of {expected:?}");
        assert_eq!(text, expected);
    }

    async fn says(&mut self, command: &str) -> String {
        self.send(&format!("{command}\r\n")).await;
        let mut read = vec![0; 8192];
        let length = timeout(Duration::from_mins(1), self.stream.read(&mut read)).await;
        String::from_utf8_lossy(&read[..length.unwrap().unwrap()]).into_owned()
    }
}

#[tokio::test]
async fn the_master_is_found_by_its_name_alone() {
    let mut client = Client::new(Some(word(0, &[1, 2])));
    client.send("*3\r\n$8\r\nSENTINEL\r\n$23\r\nget-master-addr-by-name\r\n$5\r\ncache\r\n").await;
    client.is_told("*2 $10 100.64.0.1 $4 6379").await;
    client.send("sentinel get-master-addr-by-name other\r\n").await;
    client.is_told("$-1").await;
    client.send("sentinel master other\r\n").await;
    client.is_told("-ERR~No~such~master~with~that~name").await;
    client.send("role\r\n").await;
    client.is_told("*2 $8 sentinel *1 $5 cache").await;
}

#[tokio::test]
async fn nothing_is_said_of_a_cluster_before_it_was_heard_of() {
    let mut client = Client::new(None);
    client.send("sentinel get-master-addr-by-name cache\r\n").await;
    client.is_told("$-1").await;
    client.send("sentinel masters\r\n").await;
    client.is_told("*0").await;
    client.send("sentinel announcement cache\r\n").await;
    client.is_told("$-1").await;
}

#[tokio::test]
async fn the_signed_word_is_for_those_who_ask_or_listen_for_it_by_its_own_name() {
    let mut client = Client::new(Some(word(0, &[])));
    client.send("sentinel announcement queue\r\n").await;
    client.is_told("-ERR~No~such~master~with~that~name:~this~is~a~node~of~cache").await;
    client.send("sentinel announcement cache\r\n").await;
    client.is_told("*2 $2 {} $1 \u{7}").await;
    let mut everything = Client::new(Some(word(0, &[])));
    everything.send("psubscribe *\r\n").await;
    everything.is_told("*3 $10 psubscribe $1 * :1").await;
    client.send("subscribe +announcement\r\nping\r\n").await;
    client.is_told("*3 $9 subscribe $13 +announcement :1").await;
    // None is missed between the question and the subscription.
    client.is_told("*3 $7 message $13 +announcement $5 07~{}").await;
    client.is_told("*2 $4 pong $0 ").await;
    for client in [&client, &everything] {
        client.word.send(Some(word(1, &[]))).unwrap();
    }
    client.is_told("*3 $7 message $13 +announcement $5 07~{}").await;
    // Other clients' parsers never meet it.
    let told = everything.says("ping").await;
    assert!(told.contains("+switch-master") && !told.contains("+announcement"), "{told}");
}

#[tokio::test]
async fn it_is_known_whether_somebody_listens() {
    let mut client = Client::new(Some(word(0, &[])));
    client.send("subscribe +switch-master\r\n").await;
    client.is_told("*3 $9 subscribe $14 +switch-master :1").await;
    assert_eq!(*client.subscribers.borrow_and_update(), 1);
    client.send("psubscribe *\r\n").await;
    client.is_told("*3 $10 psubscribe $1 * :2").await;
    assert_eq!(*client.subscribers.borrow_and_update(), 1, "it is one client");
    client.send("unsubscribe\r\n").await;
    client.is_told("*3 $11 unsubscribe $14 +switch-master :1").await;
    assert_eq!(*client.subscribers.borrow_and_update(), 1);
    client.send("punsubscribe\r\n").await;
    client.is_told("*3 $12 punsubscribe $1 * :0").await;
    assert_eq!(*client.subscribers.borrow_and_update(), 0);
    client.send("subscribe +switch-master\r\n").await;
    client.is_told("*3 $9 subscribe $14 +switch-master :1").await;
    let Client { stream, mut subscribers, .. } = client;
    drop(stream);
    subscribers.wait_for(|number| *number == 0).await.unwrap();
}

#[tokio::test]
async fn replicas_and_other_nodes_are_listed_as_sentinel_lists_them() {
    let mut client = Client::new(Some(word(0, &[1, 2])));
    let replicas = client.says("sentinel replicas cache").await;
    let fields: Vec<_> = replicas.split("\r\n").collect();
    let has = |pair: [&str; 2]| fields.windows(3).any(|w| w[0] == pair[0] && w[2] == pair[1]);
    assert!(fields[0] == "*2", "{replicas}");
    for pair in [
        ["name", "100.64.0.2:6379"],
        ["flags", "slave"],
        ["master-link-status", "ok"],
        ["flags", "slave,disconnected"],
        ["master-link-status", "err"],
        ["master-host", "100.64.0.1"],
    ] {
        assert!(has(pair), "{pair:?} in {replicas}");
    }
    let others = client.says("sentinel sentinels cache").await;
    assert!(others.starts_with("*2\r\n") && others.contains("26379"), "{others}");
    assert!(!others.contains("100.64.0.2\r\n"), "not the one that is asked: {others}");
    let master = client.says("sentinel masters").await;
    assert!(
        master.starts_with("*1\r\n") && master.contains("num-slaves\r\n$1\r\n2\r\n"),
        "{master}"
    );
}

#[tokio::test]
async fn a_client_that_introduces_itself_is_answered_in_its_protocol() {
    let mut client = Client::new(Some(word(0, &[])));
    for (command, answer) in [
        ("auth app wrong", "-WRONGPASS~invalid~username-password~pair~or~user~is~disabled."),
        ("auth app secret", "+OK"),
        ("client setname x", "+OK"),
        ("client setinfo lib-name redis-py", "+OK"),
        ("client getname", "$1 x"),
        ("client id", ":7"),
        ("command", "*0"),
        ("ping", "+PONG"),
        ("ping hello", "$5 hello"),
        ("hello 4", "-NOPROTO~unsupported~protocol~version"),
        ("hello 3 auth app no", "-WRONGPASS~invalid~username-password~pair~or~user~is~disabled."),
    ] {
        client.send(&format!("{command}\r\n")).await;
        client.is_told(answer).await;
    }
    let hello = client.says("hello 3 auth app secret setname y").await;
    assert!(
        hello.starts_with("%6\r\n") && hello.contains("$4\r\nmode\r\n$8\r\nsentinel"),
        "{hello}"
    );
    client.send("client getname\r\nsentinel get-master-addr-by-name nobody\r\n").await;
    client.is_told("$1 y _").await;
}

/// What redis-py, ioredis, go-redis, redis-rs, Jedis and Lettuce send before they ask anything.
#[tokio::test]
async fn nothing_that_clients_say_of_themselves_is_refused() {
    let mut client = Client::new(Some(word(0, &[1, 2])));
    for hello in ["hello 2", "hello 3"] {
        for said in [
            hello,
            "client setname x",
            "client setinfo LIB-NAME x(y;z)",
            "client setinfo LIB-VER 1.0",
            "client setinfo anything else",
            "client id",
            "client getname",
            "client info",
            "client list",
            "client no-touch on",
            "command",
            "command docs get",
            "ping",
            "info server",
            "role",
        ] {
            let answer = client.says(said).await;
            assert!(!answer.starts_with('-'), "{said}: {answer}");
        }
    }
    assert!(client.says("client list").await.contains("id=7 name=x resp=3 sub=0 psub=0"));
}

#[tokio::test]
async fn subscribers_are_told_when_the_master_is_another() {
    let mut client = Client::new(Some(word(0, &[1, 2])));
    client.send("subscribe +switch-master\r\npsubscribe *sdown\r\n").await;
    client.is_told("*3 $9 subscribe $14 +switch-master :1").await;
    client.is_told("*3 $10 psubscribe $6 *sdown :2").await;
    client.word.send(Some(word(1, &[2]))).unwrap();
    client
        .is_told("*3 $7 message $14 +switch-master $37 cache~100.64.0.1~6379~100.64.0.2~6379")
        .await;
    client
        .is_told("*4 $8 pmessage $6 *sdown $6 +sdown $61 slave~100.64.0.1:6379~100.64.0.1~6379~@~cache~100.64.0.2~6379")
        .await;
    // The same master, said anew, is no news.
    client.word.send(Some(word(1, &[2]))).unwrap();
    client.send("ping\r\n").await;
    client.is_told("*2 $4 pong $0 ").await;
    assert!(client.says("get x").await.starts_with("-ERR Can't execute 'get'"));
    client.send("unsubscribe\r\npunsubscribe\r\nping\r\n").await;
    client.is_told("*3 $11 unsubscribe $14 +switch-master :1").await;
    client.is_told("*3 $12 punsubscribe $6 *sdown :0 +PONG").await;
}

#[tokio::test]
async fn nobody_is_promoted_or_voted_for_here() {
    let mut client = Client::new(Some(word(0, &[1])));
    for (command, part) in [
        ("sentinel failover cache", "akash-redis switchover cache"),
        ("sentinel is-master-down-by-addr 100.64.0.1 6379 1 *", "no Sentinel that votes"),
        ("sentinel monitor x 1.2.3.4 6379 2", "change the manifest"),
        ("set a b", "Redis of the cluster is on port 6379"),
    ] {
        let answer = client.says(command).await;
        assert!(answer.starts_with("-ERR ") && answer.contains(part), "{command}: {answer}");
    }
    assert_eq!(client.says("quit").await, "+OK\r\n");
    assert_eq!(client.stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_no_command_ends_the_connection() {
    for (bytes, part) in [
        (format!("*1\r\n$100000\r\n{}", "x".repeat(20_000)), "longer than 16384 bytes"),
        ("x".repeat(20_000), "longer than 16384 bytes"),
        ("*1\r\n:1\r\n".to_owned(), "array of bulk strings"),
        ("*1\r\n*1\r\n$1\r\nx\r\n".to_owned(), "array of bulk strings"),
    ] {
        let mut client = Client::new(Some(word(0, &[])));
        client.send(&bytes).await;
        let mut all = Vec::new();
        timeout(Duration::from_mins(1), client.stream.read_to_end(&mut all))
            .await
            .unwrap()
            .unwrap();
        let text = String::from_utf8_lossy(&all);
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn a_pipeline_of_any_length_is_answered_one_by_one() {
    let client = Client::new(Some(word(0, &[1, 2])));
    let (mut read, mut write) = tokio::io::split(client.stream);
    let sender = tokio::spawn(async move {
        for _ in 0..2000 {
            write.write_all(b"sentinel masters\r\n").await.unwrap();
        }
        write.write_all(b"quit\r\n").await.unwrap();
        write
    });
    let mut all = Vec::new();
    timeout(Duration::from_secs(20), read.read_to_end(&mut all)).await.unwrap().unwrap();
    drop(sender.await.unwrap());
    let masters = String::from_utf8_lossy(&all).matches("num-slaves").count();
    assert_eq!(masters, 2000);
    client.word.send_replace(None);
}

#[tokio::test]
async fn another_node_is_asked_for_its_word() {
    let first = word(0, &[1]);
    let client = Client::new(Some(first.clone()));
    assert_eq!(ask(client.stream, "cache").await.unwrap(), Some(first.signed.clone()));
    let client = Client::new(Some(first));
    assert!(matches!(ask(client.stream, "other").await, Err(AskError::Refused(_))));
    let (stream, mut other) = tokio::io::duplex(1024);
    other.write_all(b"+OK\r\n").await.unwrap();
    assert!(matches!(ask(stream, "cache").await, Err(AskError::Unreadable)));
}

/// Stars that could stand for anything in very many ways.
#[tokio::test]
async fn a_pattern_cannot_keep_a_node_busy() {
    let mut client = Client::new(Some(word(0, &[1])));
    let pattern = "*?".repeat(100) + "x";
    client.send(&format!("psubscribe {pattern}\r\n")).await;
    let mut read = [0; 8];
    client.stream.read_exact(&mut read).await.unwrap();
    client.word.send(Some(word(1, &[]))).unwrap();
    client.send("ping\r\n").await;
    let mut all = vec![0; 4096];
    let mut told = String::new();
    while !told.contains("pong") {
        let length = timeout(Duration::from_secs(10), client.stream.read(&mut all)).await;
        told += &String::from_utf8_lossy(&all[..length.unwrap().unwrap()]);
    }
}
