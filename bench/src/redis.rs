//! Redis as a peer: one server that stores nothing on disk, and the four commands that make a lock of it.
//!
//! The protocol (RESP) is lines and counted strings over TCP, a few lines of code; a client library would add a
//! connection pool to the measurement.

use crate::Failure;
use crate::scratch::{Scratch, Storage};
use crate::server::{self, Server, free_ports};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const PROGRAM: &str = "redis-server";
/// How long a server may take to start, and to answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait before connecting again.
const RETRY: Duration = Duration::from_millis(5);
/// The longest string that is accepted from a server.
const STRING_MAX: usize = 1 << 16;

/// Deletes a key that still has the client's own value; returns 1 if it had.
pub(crate) const DELETE_IF_MINE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) else return 0 end";

/// Its version, if it is installed.
pub(crate) fn version() -> Result<String, Failure> {
    let output = server::version(PROGRAM)
        .ok_or_else(|| Failure::Unusable("redis is not installed: apt-get install redis-server".into()))?;
    let version = output.split_whitespace().find_map(|word| word.strip_prefix("v="));
    Ok(version.unwrap_or("unknown").to_owned())
}

/// A server that runs; it is killed when it is dropped.
pub(crate) struct Redis {
    server: Server,
    address: SocketAddr,
    _scratch: Scratch,
}

impl Redis {
    /// Starts a server and waits until it answers.
    pub(crate) fn start() -> Result<Self, Failure> {
        let scratch = Scratch::make(Storage::Disk).or_else(|_| Scratch::make(Storage::Tmpfs))?;
        let address = free_ports(1)?[0];
        let (port, folder) = (address.port().to_string(), scratch.path().display().to_string());
        let words = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir", &folder];
        let arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let server = Server::start(PROGRAM, &arguments, "REDIS_", &scratch.path().join("log"))?;
        let mut redis = Self { server, address, _scratch: scratch };
        let deadline = Instant::now() + PATIENCE;
        while let Err(failure) = redis.client().and_then(|mut client| client.command(&["PING"])) {
            if Instant::now() > deadline || !redis.server.runs() {
                let (Failure::Unusable(why) | Failure::Broken(why)) = failure;
                return Err(redis.server.broken(why));
            }
            std::thread::sleep(RETRY);
        }
        Ok(redis)
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let stream = TcpStream::connect(self.address).map_err(refused)?;
        stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(PATIENCE))).map_err(refused)?;
        Ok(Client { stream: BufReader::new(stream), request: Vec::new() })
    }
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::Broken(format!("redis: {why}"))
}

/// An answer of the server.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    /// A word, or a string.
    Text(String),
    Number(i64),
    Nothing,
}

/// A connection to a server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
    request: Vec<u8>,
}

impl Client {
    fn command(&mut self, words: &[&str]) -> Result<Answer, Failure> {
        self.request.clear();
        write!(self.request, "*{}\r\n", words.len()).map_err(refused)?;
        words.iter().try_for_each(|word| write!(self.request, "${}\r\n{word}\r\n", word.len())).map_err(refused)?;
        self.stream.get_mut().write_all(&self.request).map_err(refused)?;
        read_answer(&mut self.stream)
    }

    /// Sets a key for a while if it is not set; returns whether it did.
    pub(crate) fn set_if_absent(&mut self, key: &str, value: &str, lease: Duration) -> Result<bool, Failure> {
        let lease_ms = lease.as_millis().to_string();
        Ok(self.command(&["SET", key, value, "NX", "PX", &lease_ms])? != Answer::Nothing)
    }

    /// Loads a script; returns the hash that runs it.
    pub(crate) fn load(&mut self, script: &str) -> Result<String, Failure> {
        match self.command(&["SCRIPT", "LOAD", script])? {
            Answer::Text(hash) => Ok(hash),
            other => Err(refused(format!("a script was answered by {other:?}"))),
        }
    }

    /// Runs a script with one key and one argument.
    pub(crate) fn run(&mut self, script: &str, key: &str, argument: &str) -> Result<i64, Failure> {
        match self.command(&["EVALSHA", script, "1", key, argument])? {
            Answer::Number(number) => Ok(number),
            other => Err(refused(format!("a script returned {other:?}"))),
        }
    }
}

/// Reads one answer; a list is never requested, and so is an error.
fn read_answer(stream: &mut impl BufRead) -> Result<Answer, Failure> {
    let mut line = String::new();
    stream.by_ref().take(STRING_MAX as u64).read_line(&mut line).map_err(refused)?;
    let Some(line) = line.strip_suffix("\r\n").filter(|line| line.is_ascii() && !line.is_empty()) else {
        return Err(refused(format!("it has answered {line:?}")));
    };
    let (kind, rest) = line.split_at(1);
    match (kind, rest.parse::<i64>()) {
        ("+", _) => Ok(Answer::Text(rest.to_owned())),
        (":", Ok(number)) => Ok(Answer::Number(number)),
        ("$", Ok(-1)) => Ok(Answer::Nothing),
        ("$", Ok(length)) if (0..STRING_MAX as i64).contains(&length) => {
            let mut text = vec![0; length as usize + 2];
            stream.read_exact(&mut text).map_err(refused)?;
            text.truncate(length as usize);
            String::from_utf8(text).map(Answer::Text).map_err(refused)
        }
        _ => Err(refused(line)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_distinguished() {
        let read = |text: &str| read_answer(&mut text.as_bytes()).ok();
        assert_eq!(read("+OK\r\n"), Some(Answer::Text("OK".into())));
        assert_eq!(read("$-1\r\n"), Some(Answer::Nothing));
        assert_eq!(read("$4\r\na\r\nb\r\n"), Some(Answer::Text("a\r\nb".into())));
        assert_eq!(read(":1\r\n"), Some(Answer::Number(1)));
        for refused in ["", "\r\n", "-ERR no\r\n", "$9\r\nshort\r\n", ":x\r\n", "+cut", "$999999999\r\n"] {
            assert_eq!(read(refused), None, "{refused:?}");
        }
    }
}
