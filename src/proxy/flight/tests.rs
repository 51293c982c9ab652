//! What the server says is written here, so that every order of it can be had.

use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::proxy::resp::request;

const PATIENCE: Duration = Duration::from_secs(5);
const READONLY: &str = "-READONLY You can't write against a read only replica.\r\n";
const NOREPLICAS: &str = "-NOREPLICAS Not enough good replicas to write.\r\n";
const UNBLOCKED: &str =
    "-UNBLOCKED force unblock from blocking operation, instance state changed\r\n";

fn flight() -> Flight {
    let mut flight = Flight::new(None, PATIENCE);
    flight.connected(true, false).unwrap();
    flight
}

fn sent(words: &str) -> String {
    let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    String::from_utf8(request(&words)).unwrap()
}

/// The client sends these; what goes to the server.
fn says(flight: &mut Flight, requests: &[&str]) -> String {
    let all: String = requests.iter().map(|words| sent(words)).collect();
    flight.client_bytes(all.as_bytes()).unwrap();
    out(flight)
}

fn out(flight: &mut Flight) -> String {
    String::from_utf8(std::mem::take(flight.out())).unwrap()
}

/// The server answers; what the client is told.
fn hears(flight: &mut Flight, text: &str) -> String {
    flight.server_bytes(text.as_bytes()).unwrap();
    told(flight)
}

fn told(flight: &mut Flight) -> String {
    String::from_utf8(std::mem::take(flight.back())).unwrap()
}

/// The master is another one; what it is sent.
fn moves(flight: &mut Flight) -> Result<String, End> {
    let now = Instant::now();
    flight.leave(now, false);
    if flight.step(now)? == Step::Go {
        assert_eq!(flight.step(now + LAST_ANSWERS)?, Step::Dial);
    }
    flight.connected(true, true)?;
    Ok(out(flight))
}

#[test]
fn replies_that_say_nothing_of_a_change_go_straight_through() {
    let mut flight = flight();
    let all = says(&mut flight, &["SET k v", "GET k", "LRANGE l 0 -1"]);
    assert_eq!(all, [sent("SET k v"), sent("GET k"), sent("LRANGE l 0 -1")].concat());
    assert_eq!(
        hears(&mut flight, "+OK\r\n$1\r\nv\r\n*2\r\n$1\r\na"),
        "+OK\r\n$1\r\nv\r\n*2\r\n$1\r\na"
    );
    assert!(!flight.wants_step());
    assert_eq!(hears(&mut flight, "\r\n:1\r\n"), "\r\n:1\r\n");
}

#[test]
fn what_was_refused_is_sent_again_and_what_stood_behind_it_too() {
    let mut flight = flight();
    says(&mut flight, &["INCR a", "GET a", "PUBLISH c m", "INCR b"]);
    let replies = [READONLY, "$1\r\n0\r\n", ":0\r\n", READONLY].concat();
    assert_eq!(hears(&mut flight, &replies), "");
    assert_eq!(moves(&mut flight).unwrap(), sent("INCR a"), "one write is tried");
    assert_eq!(hears(&mut flight, ":1\r\n"), ":1\r\n");
    assert_eq!(out(&mut flight), [sent("GET a"), sent("INCR b")].concat());
    // The message was sent; its reply comes in its place.
    assert_eq!(hears(&mut flight, "$1\r\n1\r\n"), "$1\r\n1\r\n:0\r\n");
    assert_eq!(hears(&mut flight, ":1\r\n"), ":1\r\n");
}

#[test]
fn nothing_is_sent_again_that_may_have_been_carried_out() {
    for (requests, replies) in [
        (&["INCR a"][..], ""),
        (&["GET a", "INCR a"], "$1\r\n0\r\n"),
        (&["INCR a", "PUBLISH c m"], READONLY),
        (&["MULTI", "INCR a", "EXEC"], "+OK\r\n+QUEUED\r\n"),
        (&["EVAL x 0"], ""),
        (&["BLPOP l 0"], ""),
        // The first half of a reply is with the client.
        (&["GET a"], "$5\r\nhe"),
    ] {
        let mut flight = flight();
        says(&mut flight, requests);
        hears(&mut flight, replies);
        assert_eq!(moves(&mut flight), Err(End::Unknown), "{requests:?}");
    }
}

#[test]
fn what_changes_nothing_is_asked_again() {
    let mut flight = flight();
    let requests = ["GET a", "MULTI", "GET a", "EXEC", "SELECT 2", "XREAD BLOCK 0 STREAMS s $"];
    let all = says(&mut flight, &requests);
    assert_eq!(moves(&mut flight).unwrap(), all);
}

/// The connection ends with that reply: what was behind it was not read.
#[test]
fn what_stands_behind_an_unblocked_command_was_not_read() {
    let mut flight = flight();
    let all = says(&mut flight, &["BLPOP l 0", "INCR a"]);
    hears(&mut flight, UNBLOCKED);
    let all_but_the_write = sent("BLPOP l 0");
    assert_eq!(flight.ended().unwrap(), Step::Dial);
    flight.connected(true, true).unwrap();
    let first = out(&mut flight);
    assert!(first == all || first == all_but_the_write, "{first}");
    assert_eq!(hears(&mut flight, "*2\r\n$1\r\nl\r\n$1\r\ne\r\n"), "*2\r\n$1\r\nl\r\n$1\r\ne\r\n");
    let rest = out(&mut flight);
    assert_eq!(first + &rest, all);
}

/// Done later it would undo what came after it.
#[test]
fn a_write_is_not_done_after_one_that_followed_it() {
    let mut flight = flight();
    says(&mut flight, &["SET a 1", "SET a 2", "SET b 1"]);
    assert_eq!(hears(&mut flight, &[NOREPLICAS, "+OK\r\n", NOREPLICAS].concat()), "");
    let again = moves(&mut flight).unwrap();
    assert_eq!(told(&mut flight), [NOREPLICAS, "+OK\r\n"].concat());
    assert_eq!(again, sent("SET b 1"));
}

#[test]
fn one_write_is_tried_before_the_others() {
    let mut flight = flight();
    says(&mut flight, &["SET a 1", "SET a 2"]);
    hears(&mut flight, &[NOREPLICAS, NOREPLICAS].concat());
    let now = Instant::now();
    assert_eq!(flight.step(now).unwrap(), Step::Go);
    assert_eq!(out(&mut flight), "", "not at once");
    flight.step(flight.wakes_at().unwrap()).unwrap();
    assert_eq!(out(&mut flight), sent("SET a 1"));
    assert_eq!(hears(&mut flight, "+OK\r\n"), "+OK\r\n");
    assert_eq!(out(&mut flight), sent("SET a 2"));
}

#[test]
fn a_refusal_is_told_in_the_end_and_then_at_once() {
    let mut flight = flight();
    says(&mut flight, &["SET a 1"]);
    let begun = Instant::now();
    let mut now = begun;
    while now < begun + PATIENCE {
        assert_eq!(hears(&mut flight, READONLY), "");
        flight.step(now).unwrap();
        now = flight.wakes_at().unwrap();
        flight.step(now).unwrap();
        assert_eq!(out(&mut flight), sent("SET a 1"));
    }
    assert_eq!(hears(&mut flight, READONLY), "");
    flight.step(now).unwrap();
    assert_eq!(told(&mut flight), READONLY);
    says(&mut flight, &["SET a 1"]);
    assert_eq!(hears(&mut flight, READONLY), READONLY);
    says(&mut flight, &["SET a 1"]);
    assert_eq!(hears(&mut flight, "+OK\r\n"), "+OK\r\n");
    says(&mut flight, &["SET a 1"]);
    assert_eq!(hears(&mut flight, READONLY), "", "it had worked in between");
}

/// Two of three channels are confirmed when the master changes.
#[test]
fn a_channel_is_confirmed_once() {
    let mut flight = flight();
    let confirmed = |n: u32| format!("*3\r\n$9\r\nsubscribe\r\n$2\r\nc{n}\r\n:{n}\r\n");
    says(&mut flight, &["SUBSCRIBE c1 c2 c3"]);
    let two = confirmed(1) + &confirmed(2);
    assert_eq!(hears(&mut flight, &two), two);
    let restored = moves(&mut flight).unwrap();
    assert_eq!(restored, sent("SUBSCRIBE c1 c2"));
    let message = "*3\r\n$7\r\nmessage\r\n$2\r\nc1\r\n$1\r\nm\r\n";
    assert_eq!(hears(&mut flight, &[&two, message].concat()), message);
    assert_eq!(out(&mut flight), sent("SUBSCRIBE c1 c2 c3"));
    assert_eq!(hears(&mut flight, &(two + &confirmed(3))), confirmed(3));
    says(&mut flight, &["UNSUBSCRIBE", "GET k"]);
    let ended = |n: u32| format!("*3\r\n$11\r\nunsubscribe\r\n$2\r\nc{}\r\n:{}\r\n", n + 1, n);
    let all = ended(2) + &ended(1) + &ended(0) + "$-1\r\n";
    assert_eq!(hears(&mut flight, &all), all);
    assert!(!flight.is_listening());
    assert_eq!(says(&mut flight, &["SET k v"]), sent("SET k v"));
}

#[test]
fn a_transaction_too_large_to_keep_is_not_carried() {
    let mut flight = flight();
    says(&mut flight, &["MULTI"]);
    hears(&mut flight, "+OK\r\n");
    let value = "v".repeat(MOST_KEPT / 3);
    for _ in 0..4 {
        says(&mut flight, &[&format!("SET k {value}")]);
        assert_eq!(hears(&mut flight, "+QUEUED\r\n"), "+QUEUED\r\n");
    }
    assert!(flight.wants_client(), "it goes on as long as the master stays");
    assert_eq!(moves(&mut flight), Err(End::Bound));
}

#[test]
fn what_a_transaction_did_to_the_connection_goes_along() {
    let mut flight = flight();
    says(&mut flight, &["MULTI", "SELECT 5", "EXEC"]);
    hears(&mut flight, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n");
    assert_eq!(moves(&mut flight).unwrap(), sent("SELECT 5"));
    assert_eq!(says(&mut flight, &["GET k"]), "", "first the database");
    assert_eq!(hears(&mut flight, "+OK\r\n"), "");
    assert_eq!(out(&mut flight), sent("GET k"));
}

#[test]
fn who_is_not_let_in_by_the_next_master_says_nothing_there() {
    let mut flight = flight();
    says(&mut flight, &["AUTH app secret"]);
    hears(&mut flight, "+OK\r\n");
    says(&mut flight, &["GET k"]);
    assert_eq!(moves(&mut flight).unwrap(), sent("AUTH app secret"));
    let end = flight.server_bytes(b"-WRONGPASS invalid username-password pair\r\n");
    assert_eq!(end, Err(End::Restored));
}

#[test]
fn who_is_turned_away_for_now_is_told_from_who_is_not_let_in() {
    for (error, end) in [
        ("-ERR max number of clients reached\r\n", End::TurnedAway),
        ("-LOADING Redis is loading the dataset in memory\r\n", End::TurnedAway),
        ("-WRONGPASS invalid username-password pair or user is disabled.\r\n", End::Restored),
    ] {
        let mut flight = flight();
        says(&mut flight, &["AUTH app secret"]);
        hears(&mut flight, "+OK\r\n");
        assert_eq!(moves(&mut flight), Ok(sent("AUTH app secret")));
        assert_eq!(flight.server_bytes(error.as_bytes()), Err(end), "{error}");
    }
}

const FULL: &str = "-ERR max number of clients reached\r\n";

#[test]
fn who_is_turned_away_without_a_log_in_is_made_again_and_nothing_is_lost() {
    for asked in [&["INCR k", "GET k"][..], &[]] {
        let mut flight = flight();
        moves(&mut flight).unwrap();
        says(&mut flight, asked);
        let (begins, ends) = FULL.split_at(7);
        assert_eq!(hears(&mut flight, begins), "");
        assert_eq!(flight.server_bytes(ends.as_bytes()), Err(End::TurnedAway));
        assert_eq!(flight.depart(), Ok(Step::Dial));
        flight.connected(true, true).unwrap();
        assert_eq!(told(&mut flight), "");
        assert_eq!(out(&mut flight), asked.iter().map(|words| sent(words)).collect::<String>());
    }
}

#[test]
fn what_only_looks_like_being_turned_away_is_passed_on() {
    // The client came to its first server by itself.
    let mut first = flight();
    says(&mut first, &["GET k"]);
    assert_eq!(hears(&mut first, FULL), FULL);
    // Somebody who was let in hears what a command says.
    let mut later = flight();
    moves(&mut later).unwrap();
    says(&mut later, &["GET k", "MODULE.SAYS x"]);
    assert_eq!(hears(&mut later, "$-1\r\n"), "$-1\r\n");
    assert_eq!(hears(&mut later, FULL), FULL);
    // A script says what it likes, and was carried out.
    let mut script = flight();
    moves(&mut script).unwrap();
    says(&mut script, &["EVAL x 0"]);
    assert_eq!(hears(&mut script, FULL), FULL);
    // A large request cannot be sent again.
    let mut large = flight();
    moves(&mut large).unwrap();
    let value = "v".repeat(MOST_KEPT + 2 * MOST_OUT);
    for piece in sent(&format!("SET k {value}")).as_bytes().chunks(MOST_OUT) {
        large.client_bytes(piece).unwrap();
    }
    assert_eq!(hears(&mut large, FULL), FULL);
}

/// However the bytes of both sides are cut, the other side gets the same.
#[test]
fn replies_that_are_passed_on_at_once_are_those_that_are_passed_on_one_by_one() {
    let asked =
        ["SET k v", "GET k", "get a", "LRANGE l 0 -1", "PING", "INCR n", "GET l", "SET k w"];
    let replies = "+OK\r\n$12\r\nv\r\n*1\r\n+OK\r\n\r\n$-1\r\n*2\r\n$1\r\na\r\n:1\r\n+PONG\r\n-WRONGTYPE x\r\n$0\r\n\r\n+OK\r\n";
    let all: String = asked.iter().map(|words| sent(words)).collect();
    for cut in 1..=replies.len() {
        let mut flight = flight();
        let (mut came, mut gone) = (String::new(), String::new());
        for piece in all.as_bytes().chunks(cut) {
            flight.client_bytes(piece).unwrap();
            came += &out(&mut flight);
        }
        for piece in replies.as_bytes().chunks(cut) {
            flight.server_bytes(piece).unwrap();
            gone += &told(&mut flight);
        }
        assert_eq!((&came, gone.as_str()), (&all, replies), "in pieces of {cut}");
        assert!(flight.entries.is_empty() && flight.connection.wrote, "in pieces of {cut}");
    }
}

#[test]
fn the_last_answers_are_waited_for_longer_after_a_planned_change() {
    let now = Instant::now();
    for (planned, ends) in [(true, PATIENCE), (false, LAST_ANSWERS)] {
        let mut flight = flight();
        says(&mut flight, &["SET k v"]);
        flight.leave(now, planned);
        assert_eq!(flight.step(now + ends - Duration::from_millis(1)), Ok(Step::Go));
        assert_eq!(flight.wakes_at(), Some(now + ends));
        assert_eq!(flight.step(now + ends), Err(End::Unknown));
    }
    let mut flight = flight();
    says(&mut flight, &["SET k v"]);
    flight.leave(now, true);
    assert_eq!(flight.step(now + LAST_ANSWERS), Ok(Step::Go));
    assert_eq!(hears(&mut flight, READONLY), "");
    assert_eq!(flight.step(now + LAST_ANSWERS), Ok(Step::Dial));
    flight.connected(true, true).unwrap();
    assert_eq!(out(&mut flight), sent("SET k v"), "nothing was done at the old master");
}

#[test]
fn a_large_request_goes_on_as_it_comes() {
    let mut flight = flight();
    let whole = sent(&format!("SET k {}", "v".repeat(3 * MOST_KEPT)));
    let mut through = says(&mut flight, &["INCR a"]);
    for piece in whole.as_bytes().chunks(64 << 10) {
        assert!(flight.wants_client());
        flight.client_bytes(piece).unwrap();
        through += &out(&mut flight);
    }
    through += &says(&mut flight, &["GET a"]);
    assert_eq!(through, [sent("INCR a"), whole, sent("GET a")].concat());
    let replies = [":1\r\n", READONLY, "$1\r\n1\r\n"].concat();
    assert_eq!(hears(&mut flight, &replies), replies, "nobody can send it again");
}

#[test]
fn what_is_not_understood_is_left_to_redis() {
    let mut flight = flight();
    let nonsense = "*1\r\n:1\r\n";
    flight.client_bytes(nonsense.as_bytes()).unwrap();
    assert_eq!(out(&mut flight), nonsense);
    let error = "-ERR Protocol error: expected '$', got ':'\r\n";
    assert_eq!(hears(&mut flight, error), error);
    assert_eq!(flight.ended(), Err(End::Done));
}

#[test]
fn a_client_in_a_failover_is_told_of_no_replica_that_has_what_may_be_lost() {
    let mut flight = flight();
    says(&mut flight, &["SET k v"]);
    hears(&mut flight, "+OK\r\n");
    flight.ended().unwrap();
    flight.connected(false, true).unwrap();
    says(&mut flight, &["WAIT 1 0"]);
    assert_eq!(told(&mut flight), ":0\r\n");
    assert_eq!(says(&mut flight, &["WAIT 1 0"]), sent("WAIT 1 0"), "it knows now");
    hears(&mut flight, ":1\r\n");
    // In a planned change the next master has it: it is asked, with a message before.
    says(&mut flight, &["SET k v"]);
    hears(&mut flight, "+OK\r\n");
    moves(&mut flight).unwrap();
    let asked = says(&mut flight, &["WAIT 1 0"]);
    assert!(asked.starts_with("*3\r\n$7\r\nPUBLISH") && asked.ends_with(&sent("WAIT 1 0")));
    assert_eq!(hears(&mut flight, ":0\r\n:1\r\n"), ":1\r\n");
}

/// A new master takes no write before it has a replica, and says so to what is queued too.
#[test]
fn a_transaction_waits_for_a_master_that_takes_it() {
    let mut flight = flight();
    says(&mut flight, &["MULTI", "INCR n"]);
    hears(&mut flight, "+OK\r\n+QUEUED\r\n");
    let replay = [sent("MULTI"), sent("INCR n")].concat();
    assert_eq!(moves(&mut flight).unwrap(), replay);
    assert_eq!(hears(&mut flight, &["+OK\r\n", NOREPLICAS].concat()), "");
    assert_eq!(flight.step(Instant::now()).unwrap(), Step::Dial, "it would be given up here");
    flight.connected(true, false).unwrap();
    assert_eq!(out(&mut flight), replay);
    let both = says(&mut flight, &["EXEC"]);
    assert_eq!(both, sent("EXEC"));
    let gives_up = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    assert_eq!(hears(&mut flight, &["+OK\r\n", NOREPLICAS, gives_up].concat()), "");
    assert_eq!(flight.step(Instant::now()).unwrap(), Step::Dial);
    flight.connected(true, false).unwrap();
    let mut all = out(&mut flight);
    assert_eq!(all, [replay, sent("EXEC")].concat());
    assert_eq!(hears(&mut flight, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n"), "*1\r\n:1\r\n");
    all = says(&mut flight, &["GET n"]);
    assert_eq!(all, sent("GET n"));
}

/// Redis before 7.2 does not know `CLIENT SETINFO`, and a user may not be allowed all of it.
#[test]
fn a_client_says_who_it_is_to_whatever_server_there_is() {
    let unknown = "-ERR unknown subcommand 'SETINFO'. Try CLIENT HELP.\r\n";
    let forbidden = "-NOPERM User app has no permissions to run the 'client|setinfo' command\r\n";
    let mut flight = flight();
    let labels = ["CLIENT SETNAME me", "CLIENT SETINFO LIB-NAME x", "CLIENT SETINFO LIB-VER 1"];
    let all = says(&mut flight, &labels);
    assert_eq!(hears(&mut flight, &["+OK\r\n", unknown, forbidden].concat()), "+OK\r\n".repeat(3));
    // The next one is told, whether it knows it or not, and the one after that.
    for replies in
        ["+OK\r\n".repeat(3), [forbidden, unknown, unknown].concat(), "+OK\r\n".repeat(3)]
    {
        assert_eq!(moves(&mut flight).unwrap(), all);
        assert_eq!(hears(&mut flight, &replies), "");
        assert_eq!(says(&mut flight, &["GET a"]), sent("GET a"));
        assert_eq!(hears(&mut flight, "$-1\r\n"), "$-1\r\n");
    }
    // What is no label has to be as it was, and what is wrong is said.
    says(&mut flight, &["SELECT 3", "CLIENT SETINFO NOTHING x"]);
    let wrong = "-ERR Unrecognized option 'NOTHING'\r\n";
    assert_eq!(hears(&mut flight, &["+OK\r\n", wrong].concat()), ["+OK\r\n", wrong].concat());
    moves(&mut flight).unwrap();
    let replies = ["+OK\r\n".repeat(3), "-NOPERM x\r\n".to_owned()].concat();
    assert_eq!(flight.server_bytes(replies.as_bytes()), Err(End::Restored));
}

const NOT_HERE: &str = "-ERR WAIT cannot be used with replica instances.\r\n";

/// Of a proxy that confirms writes, and the question that it asks.
fn confirming() -> (Flight, String) {
    let mut flight = Flight::new(Some(Confirm { replicas: 1, timeout: PATIENCE }), PATIENCE);
    flight.connected(true, false).unwrap();
    (flight, sent(&format!("WAIT 1 {}", PATIENCE.as_millis())))
}

/// A client that lost its connection is new, and logs in while nobody is master.
#[test]
fn a_client_is_introduced_to_a_server_before_that_is_master() {
    let hello = |role: &str| {
        let length = role.len();
        format!("%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$4\r\nrole\r\n${length}\r\n{role}\r\n")
    };
    let introduces = ["HELLO 3 AUTH app secret", "CLIENT SETINFO LIB-NAME x", "SELECT 2"];
    let asks = ["HELLO 3 AUTH app secret", "CLIENT SETINFO LIB-NAME x", "SELECT 2", "INCR n"];
    let mut flight = Flight::new(None, PATIENCE);
    flight.goes_ahead();
    flight.connected(true, true).unwrap();
    assert_eq!(says(&mut flight, &asks), introduces.map(sent).concat());
    assert_eq!(hears(&mut flight, &[&hello("replica"), "+OK\r\n"].concat()), "", "not yet");
    flight.stay();
    assert_eq!(told(&mut flight), [&hello("master"), "+OK\r\n"].concat());
    assert_eq!(out(&mut flight), "", "it may refuse the last");
    assert_eq!(hears(&mut flight, "+OK\r\n"), "+OK\r\n");
    assert_eq!(out(&mut flight), sent("INCR n"));
    assert_eq!(hears(&mut flight, ":1\r\n"), ":1\r\n");
    assert_eq!(moves(&mut flight).unwrap(), introduces.map(sent).concat(), "it is known");
}

#[test]
fn a_server_that_is_not_master_does_not_say_who_is_let_in() {
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    for becomes_master in [false, true] {
        let mut flight = Flight::new(None, PATIENCE);
        flight.goes_ahead();
        flight.connected(true, true).unwrap();
        assert_eq!(says(&mut flight, &["AUTH app x", "GET k"]), sent("AUTH app x"));
        if becomes_master {
            flight.stay();
        }
        assert_eq!(flight.server_bytes(wrong.as_bytes()), Err(End::TurnedAway));
        flight.depart().unwrap();
        flight.connected(true, true).unwrap();
        assert_eq!(out(&mut flight), ["AUTH app x", "GET k"].map(sent).concat());
        assert_eq!(hears(&mut flight, wrong), wrong, "a master does");
    }
}

#[test]
fn what_was_said_to_one_that_never_became_master_is_said_to_the_next() {
    let mut flight = Flight::new(None, PATIENCE);
    flight.goes_ahead();
    flight.connected(true, true).unwrap();
    assert_eq!(says(&mut flight, &["AUTH app secret", "GET k"]), sent("AUTH app secret"));
    assert_eq!(hears(&mut flight, "+OK\r\n"), "");
    assert_eq!(flight.ended().unwrap(), Step::Dial);
    flight.connected(true, true).unwrap();
    assert_eq!(out(&mut flight), ["AUTH app secret", "GET k"].map(sent).concat());
    assert_eq!(hears(&mut flight, "+OK\r\n$-1\r\n"), "+OK\r\n$-1\r\n");
}

/// A write that an earlier master carried out stands first, and only the question after it is asked
/// again.
#[test]
fn a_reply_is_that_of_what_was_sent_again_and_not_of_what_was_answered() {
    for elsewhere in [true, false] {
        let (mut flight, wait) = confirming();
        assert_eq!(says(&mut flight, &["RPUSH l a"]), sent("RPUSH l a") + &wait);
        assert_eq!(hears(&mut flight, ":7\r\n"), "", "replicas are asked first");
        let (again, replies) = if elsewhere {
            (moves(&mut flight).unwrap(), ":0\r\n:1\r\n")
        } else {
            assert_eq!(hears(&mut flight, NOT_HERE), "");
            flight.step(Instant::now()).unwrap();
            flight.step(flight.wakes_at().unwrap()).unwrap();
            (out(&mut flight), ":1\r\n")
        };
        assert!(again.ends_with(&wait) && !again.contains("RPUSH"), "{again}");
        assert_eq!(says(&mut flight, &["MULTI"]), sent("MULTI"));
        let told = hears(&mut flight, &[replies, "+OK\r\n"].concat());
        assert_eq!(told, ":7\r\n+OK\r\n");
    }
}

/// Its reply waits for replicas when the master changes.
#[test]
fn a_transaction_that_was_carried_out_is_not_begun_again() {
    let (mut flight, wait) = confirming();
    says(&mut flight, &["MULTI", "INCR n", "EXEC"]);
    let replies = "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n";
    assert_eq!(hears(&mut flight, replies), "+OK\r\n+QUEUED\r\n");
    let again = moves(&mut flight).unwrap();
    assert!(again.ends_with(&wait) && !again.contains("MULTI"), "{again}");
    assert_eq!(hears(&mut flight, ":0\r\n:1\r\n"), "*1\r\n:1\r\n");
    assert_eq!(says(&mut flight, &["INCR n"]), sent("INCR n") + &wait);
    assert_eq!(hears(&mut flight, ":2\r\n:1\r\n"), ":2\r\n", "no transaction is open");
}

/// A message in a transaction is sent by a replica too, and the client knows of nothing yet.
#[test]
fn what_was_carried_out_is_not_again_after_a_second_change() {
    let (mut flight, _) = confirming();
    says(&mut flight, &["INCR a", "MULTI", "PUBLISH c m", "EXEC"]);
    let refused = [READONLY, NOT_HERE].concat();
    let replies = [&refused, "+OK\r\n+QUEUED\r\n*1\r\n:0\r\n"].concat();
    assert_eq!(hears(&mut flight, &replies), "");
    let now = Instant::now();
    for keeps_writes in [false, true] {
        flight.ended().unwrap();
        flight.connected(keeps_writes, true).unwrap();
        assert!(!out(&mut flight).contains("MULTI"));
        assert_eq!(hears(&mut flight, &refused), "");
        flight.step(now).unwrap();
    }
}

#[test]
fn the_question_of_the_proxy_is_never_answered_to_the_client() {
    let (mut flight, wait) = confirming();
    says(&mut flight, &["INCR a"]);
    says(&mut flight, &["INCR b"]);
    assert_eq!(hears(&mut flight, &[NOREPLICAS, NOT_HERE, ":5\r\n"].concat()), "");
    // What came later was carried out, so that the first is not tried again.
    let again = moves(&mut flight).unwrap();
    assert!(again.ends_with(&wait) && !again.contains("INCR"), "{again}");
    let told = hears(&mut flight, ":0\r\n:1\r\n:1\r\n");
    assert_eq!(told, [NOREPLICAS, ":5\r\n"].concat());
    assert_eq!(says(&mut flight, &["GET b"]), sent("GET b"));
    assert_eq!(hears(&mut flight, "$1\r\n5\r\n"), "$1\r\n5\r\n");
}

#[test]
fn one_transaction_is_given_up_for_keys_that_were_watched_elsewhere() {
    let mut flight = flight();
    says(&mut flight, &["WATCH k"]);
    hears(&mut flight, "+OK\r\n");
    moves(&mut flight).unwrap();
    let begins = ["MULTI", "GET k"].map(sent).concat();
    let all = says(&mut flight, &["MULTI", "GET k", "EXEC", "MULTI", "GET k", "EXEC"]);
    assert_eq!(all, [begins.clone(), sent("DISCARD"), begins, sent("EXEC")].concat());
    let begun = "+OK\r\n+QUEUED\r\n";
    let told = hears(&mut flight, &[begun, "+OK\r\n", begun, "*1\r\n$1\r\nv\r\n"].concat());
    assert_eq!(told, [begun, "*-1\r\n", begun, "*1\r\n$1\r\nv\r\n"].concat());
}
