//! A client that posts events over many connections at once, and what it saw.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How much to send.
#[derive(Clone, Copy)]
pub struct Load {
    /// Keep-alive connections, each with one request at a time.
    pub connections: usize,
    /// At most so many requests.
    pub posts_max: u64,
    /// At most so long.
    pub time_max: Duration,
}

/// One answer.
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// What became of a load.
#[derive(Default)]
pub struct Seen {
    /// Numbers of the posts that were answered with 200.
    pub stored: Vec<u64>,
    /// Answers 429, each with `Retry-After`.
    pub busy: u64,
    /// Connections that broke before an answer.
    pub broken: u64,
    /// Microseconds to each 200, sorted.
    pub latencies_us: Vec<u64>,
    pub took: Duration,
}

impl Seen {
    pub fn per_second(&self) -> f64 {
        self.stored.len() as f64 / self.took.as_secs_f64()
    }
    /// The latency that so many of a hundred answers stayed below, in milliseconds.
    pub fn latency_ms(&self, percent: usize) -> f64 {
        self.latencies_us
            .get((self.latencies_us.len() * percent / 100).min(self.latencies_us.len().saturating_sub(1)))
            .map_or(0.0, |us| *us as f64 / 1e3)
    }
}

/// Posts `body(number)` for number 0, 1, 2 … until the load is sent or the server is gone.
pub fn run(address: &str, token: &str, load: Load, body: impl Fn(u64) -> String + Send + Sync + 'static) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let (body, next) = (Arc::new(body), Arc::new(AtomicU64::new(0)));
        let started = Instant::now();
        let clients: Vec<_> = (0..load.connections)
            .map(|_| {
                let (body, next, address) = (Arc::clone(&body), Arc::clone(&next), address.to_owned());
                let head = format!("POST /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/x-ndjson\r\nContent-Length: ");
                tokio::spawn(async move { client(&address, &head, load, started, &next, body.as_ref()).await })
            })
            .collect();
        let mut all = Seen::default();
        for client in clients {
            let seen = client.await.unwrap();
            all.stored.extend(seen.stored);
            all.latencies_us.extend(seen.latencies_us);
            all.busy += seen.busy;
            all.broken += seen.broken;
        }
        all.took = started.elapsed();
        all.latencies_us.sort_unstable();
        all
    })
}

async fn client(
    address: &str,
    head: &str,
    load: Load,
    started: Instant,
    next: &AtomicU64,
    body: &(dyn Fn(u64) -> String + Send + Sync),
) -> Seen {
    let mut seen = Seen::default();
    let Ok(mut stream) = TcpStream::connect(address).await else {
        seen.broken += 1;
        return seen;
    };
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    while started.elapsed() < load.time_max {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= load.posts_max {
            break;
        }
        let body = body(number);
        let request = format!("{head}{}\r\n\r\n{body}", body.len());
        loop {
            let sent = Instant::now();
            if stream.write_all(request.as_bytes()).await.is_err() {
                seen.broken += 1;
                return seen;
            }
            let Some(reply) = read_reply(&mut stream, &mut buffer).await else {
                seen.broken += 1;
                return seen;
            };
            match reply.status {
                200 => {
                    assert!(reply.body.contains("\"accepted\":1,") || reply.body.contains("\"duplicate\":1"), "{}", reply.body);
                    seen.latencies_us.push(sent.elapsed().as_micros() as u64);
                    seen.stored.push(number);
                    break;
                }
                429 => {
                    assert!(reply.head.to_ascii_lowercase().contains("\r\nretry-after: "), "{}", reply.head);
                    seen.busy += 1;
                    // Sooner than it says: the test is short.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => panic!("{other}: {}", reply.body),
            }
        }
    }
    seen
}

/// Reads one answer with a Content-Length; none if the connection ends first.
pub async fn read_reply(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Reply> {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end + 2]).into_owned();
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            let whole = end + 4 + length.unwrap_or(0);
            if buffer.len() >= whole {
                let status = head.split(' ').nth(1)?.parse().ok()?;
                return Some(Reply { status, head, body: String::from_utf8_lossy(&buffer[end + 4..whole]).into_owned() });
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}
