//! Market data for many readers: the fastest way to read, in batches and in place, by readers that hold the publisher
//! back ([`Flow::Gating`]) because they must not miss a message.

use bourdon::settings::Flow;
use bourdon::{Node, Subscribe, Subscription, Topic};
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const MESSAGES: u64 = 10_000;

/// Opens an observer that gates, and waits until it follows the view: it gets all that is published from then on.
fn follow() -> Result<(Node, Subscription)> {
    let observer = Node::builder().group("fan-out").observer().flow(Flow::Gating).open()?;
    let mut subscription = observer.subscribe(Subscribe::to("md.**"))?;
    observer.join()?;
    subscription.next(Duration::from_secs(10))?.ok_or("there is no view within 10 s")?; // the first item is the view
    Ok((observer, subscription))
}

/// Adds all numbers up.
fn read(subscription: &mut Subscription) -> Result<u64> {
    let (mut sum, mut last) = (0, 0);
    while last != MESSAGES {
        let count = subscription.poll(256, |delivery| match delivery.message() {
            Some(message) => {
                last = u64::from_le_bytes(message.payload.try_into().expect("8 bytes were published"));
                sum += last;
            }
            None => println!("{delivery}"), // a gap would be reported here, between the messages on both sides of it
        })?;
        if count == 0 {
            subscription.wait(Duration::from_millis(100))?;
        }
    }
    Ok(sum)
}

fn main() -> Result<()> {
    let member = Node::builder().group("fan-out").flow(Flow::Gating).join()?; // it lets observers gate
    let mut readers = Vec::new();
    for _ in 0..2 {
        let (observer, mut subscription) = follow()?;
        readers.push(std::thread::spawn(move || {
            let _observer = observer; // it runs as long as its reader
            read(&mut subscription)
        }));
    }
    let (mut publication, ticks) = (member.publication()?, Topic::new("md.ticks")?);
    for number in 1..=MESSAGES {
        publication.publish(&ticks, &number.to_le_bytes(), Duration::from_secs(10))?;
    }
    for reader in readers {
        println!("a reader's sum: {}", reader.join().expect("a reader does not panic")?);
    }
    Ok(())
}
