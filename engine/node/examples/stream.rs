//! A subscription as a stream under tokio: the runtime watches its descriptor, and no thread is added for it.
//!
//! `cargo run --example stream --features tokio`

use bourdon::{Event, Node, Topic};
use std::error::Error;
use std::time::Duration;

const MESSAGES: u64 = 1_000;

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(follow())
}

async fn follow() -> Result<(), Box<dyn Error>> {
    let group = Node::builder().group("stream");
    let observer = group.clone().observer().open()?;
    let mut prices = observer.subscribe("md.**")?.into_stream()?;
    observer.join()?;
    let member = group.join()?;
    while let Some(received) = prices.try_next().await? {
        if let Some(Event::View { .. }) = received.event() {
            break; // it gets all that is published from here on
        }
    }

    // A publication is a handle of one thread: here one beside the runtime.
    let mut publication = member.publication()?;
    let publisher = std::thread::spawn(move || -> Result<(), Box<dyn Error + Send + Sync>> {
        let es = Topic::new("md.es.trades")?;
        for price in 1..=MESSAGES {
            publication.publish(&es, &price.to_le_bytes(), Duration::from_secs(10))?;
        }
        Ok(())
    });
    let mut count = 0;
    while count < MESSAGES
        && let Some(received) = prices.try_next().await?
    {
        match received.message() {
            Some(_) => count += 1, // it is owned: it may be held over an await, and sent to other tasks
            None => println!("{:?}", received.event()),
        }
    }
    println!("{count} messages came");
    publisher.join().expect("the publisher does not panic").map_err(|error| error.to_string())?;
    Ok(())
}
