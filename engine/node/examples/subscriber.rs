//! Subscribes to topics by a pattern, and prints messages, views and gaps in the order in which they happened.

use bourdon::{Deadline, Node, Subscribe, Topic};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let group = Node::builder().group("subscriber");
    let observer = group.clone().observer().open()?;
    let mut subscription = observer.subscribe(Subscribe::to("md.*.trades").and("news"))?; // before join: misses none
    observer.join()?;

    let member = group.join()?;
    let mut publication = member.publication()?;
    let (trades, quotes, news) = (Topic::new("md.es.trades")?, Topic::new("md.es.quotes")?, Topic::new("news")?);
    // The first item is the view: the observer gets what is published from then on.
    let view = subscription.next(Duration::from_secs(10))?.ok_or("there is no view within 10 s")?;
    println!("{view}");
    for payload in [b"4750.25", b"4750.50"] {
        publication.publish(&trades, payload, Duration::from_secs(5))?;
        publication.publish(&quotes, b"4750.25 4750.75", Duration::from_secs(5))?; // not subscribed to
    }
    publication.publish(&news, b"rates unchanged", Duration::from_secs(5))?;

    while let Some(delivery) = subscription.next(Deadline::NEVER)? {
        match delivery.message() {
            Some(message) => {
                println!("{}: {}", message.name.unwrap_or("?"), String::from_utf8_lossy(message.payload));
                if message.name == Some("news") {
                    break;
                }
            }
            None => println!("{delivery}"),
        }
    }
    Ok(())
}
