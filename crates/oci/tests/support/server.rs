//! An HTTP server on loopback whose answers a test makes up.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// An answer without an end ends nevertheless after so many bytes, so that a client that takes everything is
/// found out.
const ENDLESS: u64 = 256 << 20;

/// What a client asks.
pub(crate) struct Request {
    /// With its query.
    pub(crate) path: String,
    /// `127.0.0.1:PORT` of the server itself.
    pub(crate) host: String,
    pub(crate) authorization: Option<String>,
}

/// What it gets.
pub(crate) struct Answer {
    head: String,
    body: Vec<u8>,
    endless: bool,
}

impl Answer {
    pub(crate) fn ok(body: &[u8]) -> Answer {
        Answer::status("200 OK", body)
    }

    pub(crate) fn status(status: &str, body: &[u8]) -> Answer {
        Answer {
            head: format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len()),
            body: body.to_vec(),
            endless: false,
        }
    }

    /// 401, and what is wanted.
    pub(crate) fn challenge(value: &str) -> Answer {
        Answer::status("401 Unauthorized", b"{}").with("WWW-Authenticate", value)
    }

    /// Another place.
    pub(crate) fn redirect(url: &str) -> Answer {
        Answer::status("307 Temporary Redirect", b"").with("Location", url)
    }

    fn with(mut self, name: &str, value: &str) -> Answer {
        self.head += &format!("{name}: {value}\r\n");
        self
    }

    /// A body that breaks off at its half.
    pub(crate) fn broken(body: &[u8]) -> Answer {
        let mut answer = Answer::ok(body);
        answer.body.truncate(body.len() / 2);
        answer
    }

    /// A body of `x` whose length is not told.
    pub(crate) fn endless(status: &str) -> Answer {
        Answer {
            head: format!("HTTP/1.1 {status}\r\n"),
            body: vec![b'x'; 64 << 10],
            endless: true,
        }
    }
}

pub(crate) struct Server {
    /// `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// Bytes of bodies that clients took.
    pub(crate) sent: Arc<AtomicU64>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers as long as the test lives; one request per connection.
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server {
            host: listener.local_addr().unwrap().to_string(),
            sent: Arc::default(),
            paths: Arc::default(),
        };
        let (host, sent, paths) = (server.host.clone(), server.sent.clone(), server.paths.clone());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let request = read(&client, &host);
                paths.lock().unwrap().push(request.path.clone());
                let (answer, sent) = (answer(&request), sent.clone());
                std::thread::spawn(move || send(client, &answer, &sent));
            }
        });
        server
    }

    /// What was asked for so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.paths.lock().unwrap().clone()
    }
}

fn read(client: &TcpStream, host: &str) -> Request {
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let authorization = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        })
        .filter(|(name, _)| name == "authorization")
        // To the last line: what is left unread when the connection is closed would reset it.
        .last();
    Request {
        path: first.split(' ').nth(1).unwrap_or_default().to_owned(),
        host: host.to_owned(),
        authorization: authorization.map(|(_, value)| value),
    }
}

fn send(mut client: TcpStream, answer: &Answer, sent: &AtomicU64) {
    // Whoever asked may be gone.
    let _ = client.write_all(format!("{}Connection: close\r\n\r\n", answer.head).as_bytes());
    while client.write_all(&answer.body).is_ok() {
        let sent = sent.fetch_add(answer.body.len() as u64, Ordering::SeqCst);
        if !answer.endless || sent > ENDLESS {
            break;
        }
    }
}
