//! A counter in a file that several processes share, safe from holders that have lost the lock and do not know it.
//!
//! `cargo run --example fenced_counter` shows it with two members in one process. Followed by `-- bourdon.toml
//! counter.txt`, it runs one member that counts for ever: stop one (`kill -STOP`) for longer than it takes to be
//! removed, and let it go on: its next write is refused.
//!
//! A lock alone is not enough: between "do I hold it?" and the write, a process can be paused for as long as it takes
//! others to get the lock and write. So each write carries its token, and the file keeps the highest it has seen: under
//! flock(2), which lasts for the write only and is the kernel's, a lower one is refused.
//!
//! Invariant: the token in the file never falls, so no write comes after one of a later holder.

use bourdon::{Deadline, FencingToken, Node};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::Duration;

/// The resource: a number, and the highest token that was ever used to write it.
struct FencedCounter(File);

impl FencedCounter {
    fn open(path: &Path) -> std::io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?))
    }

    /// The value after adding one, or the token that is higher than this.
    fn add_one(&mut self, token: FencingToken) -> std::io::Result<Result<u64, u128>> {
        self.0.lock()?;
        let outcome = self.add_one_alone(token.as_u128());
        self.0.unlock()?;
        outcome
    }

    fn add_one_alone(&mut self, token: u128) -> std::io::Result<Result<u64, u128>> {
        let mut text = String::new();
        self.0.rewind()?;
        self.0.read_to_string(&mut text)?;
        let mut words = text.split_whitespace();
        let highest = words.next().and_then(|word| u128::from_str_radix(word, 16).ok()).unwrap_or(0);
        let value: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        if token < highest {
            return Ok(Err(highest));
        }
        self.0.rewind()?;
        // As long as before or longer: nothing is left behind it.
        self.0.write_all(format!("{token:032x} {:020}\n", value + 1).as_bytes())?;
        Ok(Ok(value + 1))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => show(),
        [config, path] => work(config.as_ref(), path.as_ref()),
        _ => Err("usage: fenced_counter [CONFIG FILE]".into()),
    }
}

/// Two members write in turn; then the first one writes under the token that it had, as if it had been paused.
fn show() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("bourdon-fenced-counter-{}", std::process::id()));
    let mut counter = FencedCounter::open(&path)?;
    std::fs::remove_file(&path)?; // open here, and gone at the end
    let group = Node::builder().group("fenced-counter").members(2);
    let nodes = [group.clone().rank(0).join()?, group.rank(1).join()?];
    let lock = |rank: usize| nodes[rank].lock("fenced.counter", Duration::from_secs(10));
    let first = {
        let guard = lock(0)?; // released at the end of this block
        add(&mut counter, guard.token())?;
        guard.token()
    };
    let guard = lock(1)?;
    add(&mut counter, guard.token())?;
    println!("member 0 was paused, and writes under the token that it had");
    add(&mut counter, first)?;
    Ok(())
}

/// Adds one under this token, and prints what came of it. Returns whether it was written.
fn add(counter: &mut FencedCounter, token: FencingToken) -> std::io::Result<bool> {
    let outcome = counter.add_one(token)?;
    match outcome {
        Ok(value) => println!("{value} by {token}"),
        Err(highest) => println!("refused: {token}, {:032x}, is lower than {highest:032x}", token.as_u128()),
    }
    Ok(outcome.is_ok())
}

/// Counts under the lock, ten numbers at a time, for ever.
fn work(config: &Path, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::builder().file(config)?.join()?;
    let mut counter = FencedCounter::open(path)?;
    loop {
        let guard = node.lock("fenced.counter", Deadline::NEVER)?;
        for _ in 0..10 {
            if !add(&mut counter, guard.token())? {
                break;
            }
            // Work that takes its time; it ends early if the lock is known to be lost.
            if let Some(why) = guard.wait_lost(Duration::from_millis(100)) {
                println!("lost: {why}");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bourdon::id::Epoch;

    #[test]
    fn a_lower_token_is_refused_and_nothing_changes() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let open = || FencedCounter::open(&directory.path().join("counter")).expect("it can be opened");
        let (mut paused, mut next) = (open(), open());
        let token = |epoch, number| FencingToken { birth: 1, epoch: Epoch(epoch), number };
        let add = |counter: &mut FencedCounter, token| counter.add_one(token).expect("it can be written");
        assert_eq!(add(&mut paused, token(1, 9)), Ok(1));
        assert_eq!(add(&mut next, token(2, 0)), Ok(2));
        assert_eq!(add(&mut paused, token(1, 9)), Err(token(2, 0).as_u128()));
        assert_eq!(add(&mut next, token(2, 0)), Ok(3));
    }
}
