//! `POST /v1/events` under load: many small posts, too much at once, a kill in between.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::load::{Load, run};
use crate::support::{Home, event};

fn ingest_token(home: &Home) -> String {
    home.json(&["token", "create", "feeder", "--role", "ingest"])["token"].as_str().unwrap().to_owned()
}

fn now() -> String {
    let out = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap().stdout;
    String::from_utf8(out).unwrap().trim().to_owned()
}

fn one(number: u64, now: &str) -> String {
    event(number, &format!("8{:011}", number % 1_000), None, "wake", now)
}

/// Versions of `events`, checkpoints aside.
fn versions(home: &Home) -> u64 {
    let log = home.path().join("warehouse/events/_delta_log");
    let is_version = |path: std::path::PathBuf| path.extension().is_some_and(|ending| ending == "json");
    std::fs::read_dir(log).unwrap().filter(|entry| is_version(entry.as_ref().unwrap().path())).count() as u64
}

fn stored(home: &Home) -> u64 {
    let out = home.ok(&["sql", "SELECT count(*) FROM events", "--k", "1", "--format", "csv"]);
    out.lines().nth(1).unwrap().parse().unwrap()
}

#[test]
fn small_posts_share_commits() {
    let home = Home::new();
    let token = ingest_token(&home);
    let server = home.serve();
    let (before, now) = (versions(&home), now());
    let load = Load { connections: 64, posts_max: 4_000, time_max: Duration::from_secs(60) };
    let seen = run(server.address(), &token, load, move |number| one(number, &now));
    let commits = versions(&home) - before;
    assert_eq!((seen.stored.len(), seen.broken), (4_000, 0));
    assert!(commits * 8 < 4_000, "{commits} commits");
    assert_eq!(stored(&home), 4_000);
    server.stop();
}

#[test]
fn each_small_post_that_was_answered_survives_a_kill() {
    let home = Home::new();
    let token = ingest_token(&home);
    let mut server = home.serve();
    let now = now();
    let (address, its_token, its_now) = (server.address().to_owned(), token.clone(), now.clone());
    let load = Load { connections: 48, posts_max: 200_000, time_max: Duration::from_secs(60) };
    let client = std::thread::spawn(move || run(&address, &its_token, load, move |number| one(number, &its_now)));
    // Killed once some commits have landed, with posts in flight on every connection.
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while versions(&home) < 8 && std::time::Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    server.child.kill().unwrap();
    let seen = client.join().unwrap();
    drop(server);
    assert!(seen.broken > 0 && !seen.stored.is_empty(), "{} answered, {} broken", seen.stored.len(), seen.broken);
    let answered = seen.stored.len() as u64;
    let in_table = stored(&home);
    assert!((answered..=answered + 48 * 2).contains(&in_table), "{answered} answered, {in_table} in the table");
    // Each of them is a repeat for the server that comes after, whose memory is rebuilt from the table.
    let server = home.serve();
    let body: String = seen.stored.iter().map(|number| one(*number, &now)).collect();
    let mut reply = ureq::post(server.url("/v1/events"))
        .header("Authorization", format!("Bearer {token}"))
        .content_type("application/x-ndjson")
        .send(&body)
        .unwrap();
    let reply: serde_json::Value = reply.body_mut().read_json().unwrap();
    assert_eq!(reply["rejected"]["duplicate"].as_u64(), Some(answered), "{reply}");
    assert_eq!(stored(&home), in_table);
    server.stop();
}

/// A request that has sent all of its body but the last byte, or was answered before.
enum Upload {
    Waiting(TcpStream),
    Answered(String),
    /// Closed before the answer could be read.
    Reset,
}

const UPLOAD_BYTES: usize = 8 << 20;

fn upload(address: &str, token: &str) -> Upload {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    let head =
        format!("POST /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: {UPLOAD_BYTES}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let empty_lines = vec![b'\n'; 256 << 10];
    let mut left = UPLOAD_BYTES - 1;
    let mut answer = [0; 4_096];
    while left > 0 {
        match stream.read(&mut answer) {
            Ok(read) if read > 0 => return Upload::Answered(String::from_utf8_lossy(&answer[..read]).into_owned()),
            Ok(_) => return Upload::Reset,
            Err(_not_yet) => {}
        }
        let piece = left.min(empty_lines.len());
        if stream.write_all(&empty_lines[..piece]).is_err() {
            return Upload::Reset;
        }
        left -= piece;
    }
    Upload::Waiting(stream)
}

#[test]
fn what_does_not_fit_is_told_to_wait_or_to_shrink_and_the_server_stays_up() {
    let home = Home::new();
    let token = ingest_token(&home);
    let server = home.serve();
    // 14 bodies of 8 MiB, none of which ends: the queue takes 64 MiB.
    let uploads: Vec<Upload> = (0..14).map(|_| upload(server.address(), &token)).collect();
    // What the last ones have sent may not have been looked at yet.
    std::thread::sleep(Duration::from_millis(500));
    let (mut finished, mut refused, mut reset) = (0, Vec::new(), 0);
    for upload in uploads {
        match upload {
            Upload::Answered(answer) => refused.push(answer),
            Upload::Reset => reset += 1,
            Upload::Waiting(mut stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
                let mut answer = [0; 4_096];
                let sent = stream.write_all(b"\n");
                match sent.and_then(|()| stream.read(&mut answer)) {
                    Ok(read) if answer[..read].starts_with(b"HTTP/1.1 200") => finished += 1,
                    Ok(read) if read > 0 => refused.push(String::from_utf8_lossy(&answer[..read]).into_owned()),
                    _ => reset += 1,
                }
            }
        }
    }
    assert!((6..=8).contains(&finished), "{finished} finished, {} refused, {reset} reset", refused.len());
    assert!(!refused.is_empty());
    for answer in refused {
        let lower = answer.to_ascii_lowercase();
        assert!(answer.starts_with("HTTP/1.1 429") && lower.contains("\r\nretry-after: 1\r\n"), "{answer}");
    }
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let post = |body: &str| agent.post(server.url("/v1/events")).header("Authorization", format!("Bearer {token}")).send(body).unwrap();
    let mut again = post(&one(1, &now()));
    assert_eq!(again.status().as_u16(), 200, "there is room again");
    assert_eq!(again.body_mut().read_json::<serde_json::Value>().unwrap()["accepted"], 1);
    // Announced as too long, it is refused before it is sent.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let address = server.address();
    write!(stream, "POST /v1/events HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Length: 33554433\r\n\r\n")
        .unwrap();
    let mut answer = [0; 4_096];
    let read = stream.read(&mut answer).unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
    server.stop();
}

/// `cargo test --release --test main posts_a_second -- --ignored --nocapture`; `AMELES_LOAD=256,10` sets connections and seconds.
#[test]
#[ignore = "a measurement"]
fn posts_a_second() {
    let load = std::env::var("AMELES_LOAD").unwrap_or_else(|_| "256,10".to_owned());
    let (connections, seconds) = load.split_once(',').unwrap();
    let load =
        Load { connections: connections.parse().unwrap(), posts_max: u64::MAX, time_max: Duration::from_secs(seconds.parse().unwrap()) };
    let home = Home::new();
    let token = ingest_token(&home);
    let server = home.serve();
    let (before, now) = (versions(&home), now());
    let seen = run(server.address(), &token, load, move |number| one(number, &now));
    let commits = versions(&home) - before;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    eprintln!(
        "{connections} connections: {:.0} posts/s, {:.1} commits/s, p50 {:.0} ms, p99 {:.0} ms, {} times 429; server {}",
        seen.per_second(),
        commits as f64 / seen.took.as_secs_f64(),
        seen.latency_ms(50),
        seen.latency_ms(99),
        seen.busy,
        status.lines().find(|line| line.starts_with("VmHWM")).unwrap()
    );
    assert_eq!(stored(&home), seen.stored.len() as u64);
    server.stop();
}
