//! Connections in random orders of requests, refusals and changes of the master: each reply is that
//! of its own request, and nothing is carried out twice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

use super::*;
use crate::proxy::resp::{request, words};

const SEEDS: u64 = 4000;
const EVENTS: u32 = 150;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Master,
    /// A master that lacks replicas.
    Lonely,
    /// A master that is fenced: what writes waits.
    Paused,
    Replica,
}

/// What a connection is at a server. Requests have a number of their own, and so have the replies.
struct Server {
    role: Role,
    bytes: Vec<u8>,
    replies: Vec<u8>,
    queued: Option<Vec<Vec<Vec<u8>>>>,
    aborted: bool,
    /// It knows no user before it is master.
    knows_nobody: bool,
    /// It has no room for the connection.
    full: bool,
}

impl Server {
    fn new(role: Role) -> Self {
        let (bytes, replies) = (Vec::new(), Vec::new());
        let (knows_nobody, full) = (false, false);
        Self { role, bytes, replies, queued: None, aborted: false, knows_nobody, full }
    }

    /// One that is to be master, and may not know its users yet.
    fn to_be(random: &mut StdRng) -> Self {
        Self { knows_nobody: random.gen_bool(0.3), ..Self::new(Role::Replica) }
    }

    /// One that says so at once where it has no room.
    fn with_room(role: Role, random: &mut StdRng) -> Self {
        let full = random.gen_bool(0.2);
        let says = if full { "-ERR max number of clients reached\r\n" } else { "" };
        Self { full, replies: says.into(), ..Self::new(role) }
    }

    /// Carries out what it can.
    fn works(&mut self, done: &mut BTreeMap<String, u32>) {
        if self.full {
            return;
        }
        let mut scanner = Scanner::default();
        while let Ok((length, true)) = scanner.take(&self.bytes) {
            let request: Vec<Vec<u8>> =
                words(&self.bytes[..length]).into_iter().map(<[u8]>::to_vec).collect();
            let holds = self.role == Role::Paused
                && (writes(&request[0]) && self.queued.is_none()
                    || matches!(&*request[0], b"EXEC" | b"PUBLISH"));
            if holds {
                return;
            }
            self.bytes.drain(..length);
            let reply = self.answer(request, done);
            self.replies.extend_from_slice(reply.as_bytes());
            scanner = Scanner::default();
        }
    }

    fn refuses(&self) -> Option<&'static str> {
        match self.role {
            Role::Master | Role::Paused => None,
            Role::Lonely => Some("NOREPLICAS Not enough good replicas to write.\r\n"),
            Role::Replica => Some("READONLY You can't write against a read only replica.\r\n"),
        }
    }

    fn answer(&mut self, request: Vec<Vec<u8>>, done: &mut BTreeMap<String, u32>) -> String {
        let name = request[0].clone();
        let ok = "+OK\r\n".to_owned();
        match &*name {
            b"AUTH" if self.knows_nobody && self.role == Role::Replica => {
                "-WRONGPASS invalid username-password pair or user is disabled.\r\n".to_owned()
            }
            b"MULTI" if self.queued.is_some() => {
                "-ERR MULTI calls can not be nested\r\n".to_owned()
            }
            b"MULTI" => {
                (self.queued, self.aborted) = (Some(Vec::new()), false);
                ok
            }
            b"EXEC" => {
                let Some(queued) = self.queued.take() else {
                    return "-ERR EXEC without MULTI\r\n".to_owned();
                };
                let refused = self.refuses().filter(|_| queued.iter().any(|one| writes(&one[0])));
                if std::mem::take(&mut self.aborted) {
                    return "-EXECABORT Transaction discarded because of previous errors.\r\n"
                        .into();
                } else if let Some(why) = refused {
                    return format!("-EXECABORT Transaction discarded because of: {why}");
                }
                let all: Vec<String> = queued.iter().map(|one| carried_out(one, done)).collect();
                format!("*{}\r\n{}", all.len(), all.concat())
            }
            b"DISCARD" if self.queued.take().is_some() => ok,
            b"DISCARD" => "-ERR DISCARD without MULTI\r\n".to_owned(),
            _ if writes(&name) && self.refuses().is_some() => {
                self.aborted |= self.queued.is_some();
                format!("-{}", self.refuses().unwrap_or_default())
            }
            b"WAIT" if self.role == Role::Replica => {
                "-ERR WAIT cannot be used with replica instances.\r\n".to_owned()
            }
            _ => match &mut self.queued {
                Some(queued) => {
                    queued.push(request);
                    "+QUEUED\r\n".to_owned()
                }
                None => carried_out(&request, done),
            },
        }
    }
}

fn writes(name: &[u8]) -> bool {
    matches!(name, b"INCR" | b"EVAL")
}

fn carried_out(request: &[Vec<u8>], done: &mut BTreeMap<String, u32>) -> String {
    let last = request.last().map(|word| String::from_utf8_lossy(word).into_owned());
    let number = last.unwrap_or_default();
    match &*request[0] {
        b"GET" => format!("${}\r\n{number}\r\n", number.len()),
        b"WAIT" => ":1\r\n".to_owned(),
        b"SELECT" | b"AUTH" => "+OK\r\n".to_owned(),
        // The proxy's own message has none.
        b"PUBLISH" if number.is_empty() => ":0\r\n".to_owned(),
        _ => {
            *done.entry(number.clone()).or_default() += 1;
            format!(":{number}\r\n")
        }
    }
}

/// What the client asked for, and has no reply to.
struct Asked {
    name: &'static str,
    number: String,
    /// What an `EXEC` is to carry out, with its numbers.
    queued: Vec<(&'static str, String)>,
}

struct Run {
    random: StdRng,
    now: Instant,
    flight: Flight,
    server: Server,
    /// The master that is to be, while a planned change is under way.
    change: Option<u64>,
    changes: u64,
    ahead: bool,
    /// The connection is with the one that was master before.
    behind: bool,
    /// What was last said of a server to which it was made.
    made: (bool, bool),
    planned: bool,
    asked: VecDeque<Asked>,
    open: Option<Vec<(&'static str, String)>>,
    numbers: u32,
    replies: Vec<u8>,
    done: BTreeMap<String, u32>,
    acknowledged: Vec<String>,
    confirms: bool,
    /// How likely it is that a server dies where one may.
    dies: f64,
    /// A reply said that a transaction did not begin.
    begins_not: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let confirms = random.gen_bool(0.5);
        let (patience, dies) = if seed.is_multiple_of(2) { (5000, 0.1) } else { (400, 0.6) };
        let patience = Duration::from_millis(patience);
        let confirm = confirms.then_some(Confirm { replicas: 1, timeout: patience });
        let mut flight = Flight::new(confirm, patience);
        flight.connected(true, false).unwrap();
        Self {
            random,
            now: Instant::now(),
            flight,
            server: Server::new(Role::Master),
            change: None,
            changes: 0,
            ahead: false,
            behind: false,
            made: (true, false),
            planned: false,
            asked: VecDeque::new(),
            open: None,
            // None of them is a count of replicas.
            numbers: 100,
            replies: Vec::new(),
            done: BTreeMap::new(),
            acknowledged: Vec::new(),
            confirms,
            dies,
            begins_not: false,
        }
    }

    /// The client asks for some more.
    fn asks(&mut self) -> Result<(), End> {
        let mut bytes = Vec::new();
        for _ in 0..self.random.gen_range(1..5) {
            self.numbers += 1;
            let number = self.numbers.to_string();
            let (name, words): (_, Vec<&str>) = match self.random.gen_range(0..12) {
                0 | 1 => ("GET", vec!["GET", &number]),
                2..=4 => ("INCR", vec!["INCR", &number]),
                5 => ("EVAL", vec!["EVAL", "x", "0", &number]),
                6 => ("PUBLISH", vec!["PUBLISH", "c", &number]),
                7 if self.open.is_none() => ("SELECT", vec!["SELECT", "1"]),
                8 if self.open.is_none() => ("AUTH", vec!["AUTH", "app", "secret"]),
                9 if self.open.is_none() => ("WAIT", vec!["WAIT", "1", "100"]),
                _ if self.open.is_none() => ("MULTI", vec!["MULTI"]),
                10 => ("DISCARD", vec!["DISCARD"]),
                _ => ("EXEC", vec!["EXEC"]),
            };
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            bytes.extend(request(&words));
            let queued = match name {
                "MULTI" => {
                    self.open = Some(Vec::new());
                    Vec::new()
                }
                "EXEC" | "DISCARD" => self.open.take().unwrap_or_default(),
                _ => {
                    self.open
                        .as_mut()
                        .into_iter()
                        .for_each(|open| open.push((name, number.clone())));
                    Vec::new()
                }
            };
            self.asked.push_back(Asked { name, number, queued });
        }
        for piece in bytes.chunks(self.random.gen_range(1..64)) {
            self.flight.client_bytes(piece)?;
        }
        Ok(())
    }

    /// Bytes go to the server, and some of its replies come.
    fn moves(&mut self) -> Result<(), End> {
        self.server.bytes.append(self.flight.out());
        self.server.works(&mut self.done);
        let some = self.random.gen_range(0..=self.server.replies.len());
        let came: Vec<u8> = self.server.replies.drain(..some).collect();
        self.flight.server_bytes(&came)?;
        self.hears();
        if self.server.full && self.server.replies.is_empty() {
            let step = self.flight.ended()?;
            return self.follows(step);
        }
        Ok(())
    }

    /// The client reads its replies.
    fn hears(&mut self) {
        self.replies.append(self.flight.back());
        let mut scanner = Scanner::default();
        while let Ok((length, true)) = scanner.take(&self.replies) {
            let reply: Vec<u8> = self.replies.drain(..length).collect();
            self.hears_one(&String::from_utf8(reply).unwrap());
            scanner = Scanner::default();
        }
    }

    fn hears_one(&mut self, reply: &str) {
        let asked = self.asked.pop_front().unwrap_or_else(|| panic!("nobody asked: {reply:?}"));
        let (number, is) = (&asked.number, |text: &str| reply == text);
        if reply.starts_with('-') {
            self.begins_not |= asked.name == "MULTI";
            let misplaced = reply.contains("MULTI") && !self.begins_not;
            let unconfirmed = reply.starts_with("-UNCONFIRMED the master changed")
                || reply.starts_with("-UNCONFIRMED redis") && reply.contains("(ERR WAIT cannot");
            let wrong = reply.starts_with("-UNCONFIRMED") && !(unconfirmed && self.confirms);
            assert!(!misplaced && !wrong, "{} {number}: {reply:?}", asked.name);
            return;
        }
        let direct = format!(":{number}\r\n");
        let fits = match asked.name {
            "MULTI" | "AUTH" | "SELECT" | "DISCARD" => is("+OK\r\n"),
            "WAIT" => is(":0\r\n") || is(":1\r\n"),
            "GET" => is("+QUEUED\r\n") || is(&format!("${}\r\n{number}\r\n", number.len())),
            "EXEC" => {
                let there: Vec<&str> =
                    reply.split("\r\n").filter(|line| !line.is_empty()).collect();
                let there = there[1..].iter().filter(|line| !line.starts_with('$'));
                there
                    .map(|line| line.trim_start_matches(':'))
                    .eq(asked.queued.iter().map(|(_, number)| number))
            }
            _ => is("+QUEUED\r\n") || is(&direct),
        };
        assert!(fits, "{} {number}: {reply:?}", asked.name);
        if is(&direct) {
            self.acknowledged.push(asked.number);
        } else if asked.name == "EXEC" {
            let queued = asked.queued.into_iter().filter(|(name, _)| *name != "GET");
            self.acknowledged.extend(queued.map(|(_, number)| number));
        }
    }

    /// What whoever carries the bytes does with the decision.
    fn follows(&mut self, step: Step) -> Result<(), End> {
        if step == Step::Dial {
            let (later, changing) = (std::mem::take(&mut self.behind), self.change.is_some());
            // The one that is left is fenced still, or takes writes.
            let role = if changing { Role::Paused } else { Role::Master };
            self.server = Server::with_room(role, &mut self.random);
            self.ahead = false;
            self.made = ((later && self.planned) || changing, later || changing);
            self.flight.connected(self.made.0, self.made.1)?;
        }
        Ok(())
    }

    fn steps(&mut self) -> Result<(), End> {
        let due = self.flight.wakes_at().is_some_and(|at| at <= self.now);
        if due || self.flight.wants_step() {
            let step = self.flight.step(self.now)?;
            self.follows(step)?;
        }
        Ok(())
    }

    /// A planned change goes a step further.
    fn changes(&mut self) -> Result<(), End> {
        match self.change {
            // The one that was chosen after a failure is master.
            None if self.ahead => {
                (self.server.role, self.ahead) = (Role::Master, false);
                self.flight.stay();
            }
            None if !self.behind => {
                self.changes += 1;
                self.change = Some(self.changes);
                self.flight.planned(self.change);
                self.server.role = Role::Paused;
            }
            None => {}
            Some(_) if self.random.gen_bool(0.5) => {
                if self.ahead || !self.flight.may_go_ahead() {
                    return Ok(());
                }
                self.flight.depart()?;
                self.flight.goes_ahead();
                (self.server, self.ahead) = (Server::to_be(&mut self.random), true);
                self.flight.connected(true, true)?;
            }
            Some(_) => {
                self.change = None;
                let undone = !self.ahead && self.random.gen_bool(0.3);
                if undone || self.ahead {
                    self.server.role = Role::Master;
                    self.flight.stay();
                } else {
                    (self.server.role, self.behind, self.planned) = (Role::Replica, true, true);
                    self.flight.leave(self.now, true);
                }
                self.ahead = false;
                self.flight.planned(None);
                let step = self.flight.step(self.now)?;
                self.follows(step)?;
            }
        }
        Ok(())
    }

    /// The server ends without a word, and another one is master.
    fn fails(&mut self) -> Result<(), End> {
        if self.change.is_some() || self.ahead {
            return Ok(());
        }
        (self.behind, self.planned) = (true, false);
        let step = self.flight.ended()?;
        if step == Step::Dial && self.random.gen_bool(0.5) {
            // It was chosen, and is not master yet.
            self.flight.goes_ahead();
            self.server = Server::to_be(&mut self.random);
            (self.ahead, self.behind) = (true, false);
            return self.flight.connected(false, true);
        }
        self.follows(step)
    }

    /// A server that does not let the client in may be another one than it was, or has room later.
    fn event(&mut self) -> Result<(), End> {
        let happened = self.happens();
        self.is_let_in(happened)
    }

    fn is_let_in(&mut self, happened: Result<(), End>) -> Result<(), End> {
        match happened {
            Err(End::TurnedAway) if self.server.full && !self.behind => {
                self.flight.depart()?;
                self.server = Server::with_room(self.server.role, &mut self.random);
                self.flight.connected(self.made.0, self.made.1)
            }
            Err(End::TurnedAway | End::Restored)
                if self.server.knows_nobody || self.server.full =>
            {
                let step = self.flight.depart()?;
                self.follows(step)
            }
            other => other,
        }
    }

    fn happens(&mut self) -> Result<(), End> {
        match self.random.gen_range(0..20) {
            0..=5 => self.asks()?,
            6 => self.changes()?,
            7 if self.server.role == Role::Master && !self.behind => {
                self.server.role = Role::Lonely;
            }
            8 if self.server.role == Role::Lonely => self.server.role = Role::Master,
            9 if self.random.gen_bool(self.dies) => self.fails()?,
            10..=12 => self.now += Duration::from_millis(self.random.gen_range(1..100)),
            _ => self.moves()?,
        }
        self.steps()
    }

    /// All comes to its end, and each request has a reply.
    fn ends(&mut self) -> Result<(), End> {
        while self.change.is_some() || self.ahead {
            self.changes()?;
        }
        for _ in 0..1000 {
            if self.server.role == Role::Lonely {
                self.server.role = Role::Master;
            }
            self.now += Duration::from_millis(10);
            let happened = self.moves().and_then(|()| self.steps());
            self.is_let_in(happened)?;
            if self.asked.is_empty() {
                return Ok(());
            }
        }
        panic!("{} has no reply", self.asked[0].name);
    }
}

#[test]
fn each_reply_is_that_of_its_request_and_nothing_is_carried_out_twice() {
    let given = std::env::var("FLIGHT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let mut whole = 0;
    for seed in seeds.clone() {
        // Printed where a test fails.
        println!("FLIGHT_SEED={seed} repeats this");
        let mut run = Run::new(seed);
        let mut all = || {
            for _ in 0..EVENTS {
                run.event()?;
            }
            run.ends()
        };
        match all() {
            Ok(()) => whole += 1,
            Err(End::Unknown | End::Bound) => run.hears(),
            Err(end) => panic!("{end}"),
        }
        for (number, times) in &run.done {
            assert_eq!(*times, 1, "{number} was carried out more than once");
        }
        for number in &run.acknowledged {
            assert!(run.done.contains_key(number), "{number} was never carried out");
        }
    }
    assert!(whole * 4 >= seeds.end - seeds.start, "{whole} connections lasted to the end");
}
