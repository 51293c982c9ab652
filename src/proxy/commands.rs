//! What a request is to whoever carries it to another master: what may be sent twice, what changes
//! the connection, what nobody can carry.

use super::resp::{Head, Name};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing: it may be sent again wherever it was answered.
    Read,
    /// A read that may wait for others to write.
    WaitingRead,
    /// It changes the connection alone, and is told to the next master.
    State(State),
    /// It may write. What is not known is taken for that.
    Write,
    /// A write that may wait for others to write.
    WaitingWrite,
    /// It may write, and an error does not say that it did not.
    Script,
    /// It changes the server, and no data.
    Act,
    /// Begins a transaction.
    Multi,
    /// Carries it out.
    Exec,
    /// Gives it up.
    Discard,
    /// What is watched is lost with the connection.
    Watch,
    /// Nothing is watched any more.
    Unwatch,
    /// Its replies are as many as its channels.
    Subscribe,
    /// The same; without a channel as many as there are of this list.
    Unsubscribe(List),
    /// How many replicas have what the connection wrote.
    Wait,
    /// The same with files.
    WaitAof,
    /// The same, asked by the proxy itself.
    OwnWait,
    /// The connection is as a new one.
    Reset,
    /// The server ends the connection.
    Quit,
    /// The connection is nothing that can be carried to another master from here on.
    Raw,
    /// The proxy itself answers: the client is told of planned changes, or no longer.
    Notify,
    /// The proxy itself refuses it.
    Refused,
    /// An empty line: nobody answers.
    Nothing,
}

/// What a connection keeps of a request. Of each kind the latest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// `HELLO` with a version.
    Hello,
    /// `AUTH`.
    Auth,
    /// `SELECT`.
    Select,
    /// `CLIENT SETNAME`.
    Name,
    /// `CLIENT SETINFO`, by its first letters.
    Info,
    /// `CLIENT NO-EVICT`.
    NoEvict,
    /// `CLIENT NO-TOUCH`.
    NoTouch,
    /// `CLIENT TRACKING`.
    Tracking,
    /// `CLIENT CACHING`, which is about the next command.
    Caching,
}

/// A list of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    /// Of channels.
    Channels,
    /// Of patterns.
    Patterns,
    /// Of shard channels.
    Shards,
}

/// Commands that write nothing and wait for nothing.
const READS: &[&[u8]] = &[
    b"BITCOUNT",
    b"BITFIELD_RO",
    b"BITPOS",
    b"COMMAND",
    b"DBSIZE",
    b"DUMP",
    b"ECHO",
    b"EVALSHA_RO",
    b"EVAL_RO",
    b"EXISTS",
    b"EXPIRETIME",
    b"FCALL_RO",
    b"GEODIST",
    b"GEOHASH",
    b"GEOPOS",
    b"GEORADIUSBYMEMBER_RO",
    b"GEORADIUS_RO",
    b"GEOSEARCH",
    b"GET",
    b"GETBIT",
    b"GETRANGE",
    b"HEXISTS",
    b"HEXPIRETIME",
    b"HGET",
    b"HGETALL",
    b"HKEYS",
    b"HLEN",
    b"HMGET",
    b"HPEXPIRETIME",
    b"HPTTL",
    b"HRANDFIELD",
    b"HSCAN",
    b"HSTRLEN",
    b"HTTL",
    b"HVALS",
    b"INFO",
    b"KEYS",
    b"LASTSAVE",
    b"LCS",
    b"LINDEX",
    b"LLEN",
    b"LOLWUT",
    b"LPOS",
    b"LRANGE",
    b"MGET",
    b"OBJECT",
    b"PEXPIRETIME",
    b"PFCOUNT",
    b"PING",
    b"PTTL",
    b"PUBSUB",
    b"RANDOMKEY",
    b"READONLY",
    b"READWRITE",
    b"ROLE",
    b"SCAN",
    b"SCARD",
    b"SDIFF",
    b"SINTER",
    b"SINTERCARD",
    b"SISMEMBER",
    b"SMEMBERS",
    b"SMISMEMBER",
    b"SORT_RO",
    b"SRANDMEMBER",
    b"SSCAN",
    b"STRLEN",
    b"SUBSTR",
    b"SUNION",
    b"TIME",
    b"TTL",
    b"TYPE",
    b"XINFO",
    b"XLEN",
    b"XPENDING",
    b"XRANGE",
    b"XREVRANGE",
    b"ZCARD",
    b"ZCOUNT",
    b"ZDIFF",
    b"ZINTER",
    b"ZINTERCARD",
    b"ZLEXCOUNT",
    b"ZMSCORE",
    b"ZRANDMEMBER",
    b"ZRANGE",
    b"ZRANGEBYLEX",
    b"ZRANGEBYSCORE",
    b"ZRANK",
    b"ZREVRANGE",
    b"ZREVRANGEBYLEX",
    b"ZREVRANGEBYSCORE",
    b"ZREVRANK",
    b"ZSCAN",
    b"ZSCORE",
    b"ZUNION",
];

/// What this request is; `confirms` where the proxy needs the reply to each.
#[inline]
pub(super) fn kind(head: &Head, confirms: bool) -> Kind {
    // What most connections say all the time.
    if head.name.eq_ignore_ascii_case(b"GET") {
        return Kind::Read;
    }
    if head.name.eq_ignore_ascii_case(b"SET") {
        return Kind::Write;
    }
    any_kind(head, confirms)
}

fn any_kind(head: &Head, confirms: bool) -> Kind {
    let name: &[u8] = &Name::new(head.name);
    match name {
        b"HELLO" if head.words > 1 => Kind::State(State::Hello),
        // A greeting without a version.
        b"HELLO" => Kind::Read,
        b"" if head.words == 0 => Kind::Nothing,
        b"AUTH" => Kind::State(State::Auth),
        b"SELECT" => Kind::State(State::Select),
        b"CLIENT" => client(&Name::new(head.first), confirms),
        b"MULTI" => Kind::Multi,
        b"EXEC" => Kind::Exec,
        b"DISCARD" => Kind::Discard,
        b"WATCH" => Kind::Watch,
        b"UNWATCH" => Kind::Unwatch,
        b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" => Kind::Subscribe,
        b"UNSUBSCRIBE" => Kind::Unsubscribe(List::Channels),
        b"PUNSUBSCRIBE" => Kind::Unsubscribe(List::Patterns),
        b"SUNSUBSCRIBE" => Kind::Unsubscribe(List::Shards),
        b"WAIT" => Kind::Wait,
        b"WAITAOF" => Kind::WaitAof,
        b"RESET" => Kind::Reset,
        b"QUIT" => Kind::Quit,
        b"SYNC" | b"PSYNC" | b"REPLCONF" if confirms => Kind::Refused,
        b"MONITOR" | b"SYNC" | b"PSYNC" | b"REPLCONF" => Kind::Raw,
        b"BLMOVE" | b"BLMPOP" | b"BLPOP" | b"BRPOP" | b"BRPOPLPUSH" | b"BZMPOP" | b"BZPOPMAX"
        | b"BZPOPMIN" | b"XREADGROUP" => Kind::WaitingWrite,
        b"XREAD" => Kind::WaitingRead,
        b"EVAL" | b"EVALSHA" | b"FCALL" => Kind::Script,
        b"PUBLISH" | b"SPUBLISH" | b"CONFIG" | b"ACL" | b"DEBUG" | b"SCRIPT" | b"LATENCY"
        | b"MEMORY" | b"SLOWLOG" | b"CLUSTER" | b"BGSAVE" | b"BGREWRITEAOF" | b"SAVE" => Kind::Act,
        _ if READS.binary_search(&name).is_ok() => Kind::Read,
        _ => Kind::Write,
    }
}

fn client(first: &[u8], confirms: bool) -> Kind {
    match first {
        b"SETNAME" => Kind::State(State::Name),
        b"SETINFO" => Kind::State(State::Info),
        b"NO-EVICT" => Kind::State(State::NoEvict),
        b"NO-TOUCH" => Kind::State(State::NoTouch),
        b"TRACKING" => Kind::State(State::Tracking),
        b"CACHING" => Kind::State(State::Caching),
        b"GETNAME" | b"GETREDIR" | b"HELP" | b"ID" | b"INFO" | b"LIST" | b"TRACKINGINFO" => {
            Kind::Read
        }
        b"REPLY" if confirms => Kind::Refused,
        b"REPLY" => Kind::Raw,
        b"MAINT_NOTIFICATIONS" => Kind::Notify,
        _ => Kind::Act,
    }
}

impl Kind {
    /// It changes nothing but the connection: it may be sent again whatever became of it.
    pub fn repeats(self) -> bool {
        matches!(
            self,
            Self::Read
                | Self::WaitingRead
                | Self::State(_)
                | Self::Multi
                | Self::Discard
                | Self::Watch
                | Self::Unwatch
                | Self::Subscribe
                | Self::Unsubscribe(_)
                | Self::Wait
                | Self::WaitAof
                | Self::OwnWait
                | Self::Reset
        )
    }

    /// It may have changed data.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::WaitingWrite | Self::Script | Self::Exec)
    }

    /// It is sent also while writes stand still.
    pub fn passes_a_fence(self) -> bool {
        self.repeats() && !matches!(self, Self::Multi) || matches!(self, Self::Quit)
    }

    /// No transaction is open behind it.
    pub fn ends_transaction(self) -> bool {
        matches!(self, Self::Exec | Self::Discard | Self::Reset)
    }

    /// The connection is another one after it, and the next master is to know that.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::State(_) | Self::Subscribe | Self::Unsubscribe(_))
    }

    /// It only says who the client is.
    pub fn introduces(self) -> bool {
        matches!(self, Self::State(state) if !matches!(state, State::Tracking | State::Caching))
    }

    /// What was written before is asked for before it is sent: its reply is not to wait for that.
    pub fn is_apart(self) -> bool {
        !self.writes() && !matches!(self, Self::Act | Self::OwnWait)
            || matches!(self, Self::WaitingWrite)
    }

    /// Nobody is asked.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Notify | Self::Refused)
    }
}

/// What redis answers to what it did not carry out, because of its role or its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is a replica.
    Replica,
    /// It is no longer to wait, and the connection ends: what came after was not read.
    Unblocked,
    /// Something is missing that may come.
    NotYet,
}

/// Whether this error says that nothing was done, and that another server, or the same one later,
/// may do it.
pub(super) fn refusal(error: &[u8], kind: Kind) -> Option<Refusal> {
    let starts = |with: &str| error.starts_with(with.as_bytes());
    if starts("-READONLY ") {
        Some(Refusal::Replica)
    } else if starts("-UNBLOCKED force") {
        Some(Refusal::Unblocked)
    } else if starts("-NOREPLICAS ") || starts("-MASTERDOWN ") || starts("-LOADING ") {
        Some(Refusal::NotYet)
    } else if kind == Kind::Exec && starts("-EXECABORT Transaction discarded because of: ") {
        let why = [&b"-"[..], &error["-EXECABORT Transaction discarded because of: ".len()..]];
        refusal(&why.concat(), Kind::Write)
    } else if matches!(kind, Kind::Wait | Kind::WaitAof | Kind::OwnWait)
        && (starts("-ERR WAIT cannot be used with replica")
            || starts("-ERR WAITAOF cannot be used with replica"))
    {
        Some(Refusal::Replica)
    } else {
        None
    }
}

/// Whether an error to a connection that is new says nothing against it: later the same is taken.
pub(super) fn turns_away(error: &[u8]) -> bool {
    has_no_room(error) || refusal(error, Kind::Write) == Some(Refusal::NotYet)
}

/// Whether this is what redis says to a new connection, of which it reads nothing.
pub(super) fn has_no_room(error: &[u8]) -> bool {
    error.starts_with(b"-ERR max number of clients reached")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::resp::{head, request};

    fn of(words: &[&str]) -> Kind {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        kind(&head(&request(&words)).unwrap().unwrap(), false)
    }

    #[test]
    fn the_list_of_reads_can_be_searched() {
        assert!(READS.is_sorted());
        for name in READS {
            assert_eq!(kind(&head(&request(&[name])).unwrap().unwrap(), false), Kind::Read);
        }
    }

    #[test]
    fn what_is_not_known_is_taken_for_a_write() {
        assert_eq!(of(&["nosuch", "a"]), Kind::Write);
        assert_eq!(of(&["GETDEL", "a"]), Kind::Write);
        assert_eq!(of(&["client", "kill", "x"]), Kind::Act);
        assert_eq!(of(&["client", "setinfo", "lib-name", "x"]), Kind::State(State::Info));
        assert_eq!(of(&["hello"]), Kind::Read);
        assert_eq!(of(&["HELLO", "3"]), Kind::State(State::Hello));
    }

    #[test]
    fn a_refusal_says_that_nothing_was_done() {
        let text = b"-READONLY You can't write against a read only replica.\r\n";
        assert_eq!(refusal(text, Kind::Write), Some(Refusal::Replica));
        let text = b"-EXECABORT Transaction discarded because of: NOREPLICAS Not enough\r\n";
        assert_eq!(refusal(text, Kind::Exec), Some(Refusal::NotYet));
        assert_eq!(refusal(text, Kind::Write), None);
        let text = b"-EXECABORT Transaction discarded because of previous errors.\r\n";
        assert_eq!(refusal(text, Kind::Exec), None);
        let text = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n";
        assert_eq!(refusal(text, Kind::WaitingWrite), None, "somebody's own doing");
        assert_eq!(refusal(b"-WRONGTYPE Operation\r\n", Kind::Write), None);
    }
}
