//! A front of the control server that makes faults on real connections: requests pass through it to
//! the server, unless they are to fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// No request and no answer of these tests is larger.
const MOST_BYTES: usize = 1 << 20;

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not carried out: a pause of a second is asked for.
    TooMany,
    /// It is carried out, and the connection ends without an answer.
    LostAnswer,
    /// It is carried out, and the answer says that it was not.
    ServerError,
    /// It is carried out, and the answer comes later than anybody waits for it.
    Slow,
}

/// A kind of request: its method, and how its path ends.
pub type Kind = (&'static str, &'static str);

/// The front; it ends when it is dropped.
pub struct Front {
    pub url: String,
    state: Arc<Mutex<State>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    faults: Vec<(Kind, Fault)>,
    seen: Vec<(String, String)>,
}

impl Front {
    /// Before the server at `server` (`http://` and an address).
    pub async fn before(server: &str) -> Self {
        let server: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, shared.clone()));
            }
        });
        Self { url, state, server }
    }

    /// The next request of this kind fails so.
    pub fn fail(&self, kind: Kind, fault: Fault) {
        self.state.lock().unwrap().faults.push((kind, fault));
    }

    /// Whether a fault is left that no request has met.
    pub fn waits(&self) -> bool {
        !self.state.lock().unwrap().faults.is_empty()
    }

    /// How many requests of this kind came.
    pub fn count(&self, kind: Kind) -> usize {
        self.state
            .lock()
            .unwrap()
            .seen
            .iter()
            .filter(|(method, path)| is(kind, method, path))
            .count()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl State {
    /// Notes a request; the fault that it meets.
    fn note(&mut self, method: &str, path: &str) -> Option<Fault> {
        self.seen.push((method.to_owned(), path.to_owned()));
        let at = self.faults.iter().position(|(kind, _)| is(*kind, method, path))?;
        Some(self.faults.remove(at).1)
    }
}

/// A path that ends with `/` in the kind names what is below it.
fn is(kind: Kind, method: &str, path: &str) -> bool {
    kind.0 == method
        && if kind.1.ends_with('/') { path.contains(kind.1) } else { path.ends_with(kind.1) }
}

/// One request: whoever has more opens another connection, because each answer says that this one
/// ends.
async fn serve(
    mut client: TcpStream,
    server: SocketAddr,
    state: Arc<Mutex<State>>,
) -> std::io::Result<()> {
    let Some(request) = read_request(&mut client).await? else { return Ok(()) };
    let line = request.line();
    let mut words = line.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fault = state.lock().unwrap().note(method, path);
    if fault == Some(Fault::TooMany) {
        return client.write_all(&says("429 Too Many Requests", "Retry-After: 1\r\n")).await;
    }
    let answer = deliver(&request, server).await?;
    match fault {
        Some(Fault::LostAnswer) => Ok(()),
        Some(Fault::ServerError) => client.write_all(&says("500 Internal Server Error", "")).await,
        // Until the client has had enough.
        Some(Fault::Slow) => client.read(&mut [0; 1]).await.map(drop),
        _ => client.write_all(&answer).await,
    }
}

fn says(status: &str, header: &str) -> Vec<u8> {
    let body = r#"{"message":"by the front"}"#;
    format!(
        "HTTP/1.1 {status}\r\n{header}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

async fn deliver(request: &Request, server: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let (line, headers) = request.head.split_once("\r\n").unwrap_or((&request.head, ""));
    stream.write_all(format!("{line}\r\nConnection: close\r\n{headers}").as_bytes()).await?;
    stream.write_all(&request.body).await?;
    let mut answer = Vec::new();
    stream.take(MOST_BYTES as u64).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// A request as it came, with the empty line that ends its head.
struct Request {
    head: String,
    body: Vec<u8>,
}

impl Request {
    fn line(&self) -> String {
        self.head.lines().next().unwrap_or_default().to_owned()
    }
}

/// `None` when the connection ends before there is a whole request.
async fn read_request(client: &mut TcpStream) -> std::io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length: usize =
                length.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0);
            if bytes.len() >= end + 4 + length {
                return Ok(Some(Request { head, body: bytes.split_off(end + 4) }));
            }
        }
        let read = client.read(&mut chunk).await?;
        if read == 0 || bytes.len() > MOST_BYTES {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}
