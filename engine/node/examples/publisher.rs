//! Publishes, and waits until every member has what was published.
//!
//! The loop is right in every state of the group: a full window and a view change are waited out, while there is no
//! majority nothing piles up, and a message that can never be sent ends it with the reason.

use bourdon::{Node, Publication, Refusal, Topic};
use std::error::Error;
use std::time::Duration;

const MESSAGES: u64 = 10_000;

/// Publishes these messages, however long the group takes for them. Returns how many it has published.
fn publish(quotes: &mut Publication, topic: &Topic, messages: u64) -> Result<u64, Refusal> {
    for price in 0..messages {
        while let Err(refusal) = quotes.publish(topic, &price.to_le_bytes(), Duration::from_secs(1)) {
            if !refusal.is_transient() {
                return Err(refusal); // too large, the wrong role, or the node was closed
            }
            eprintln!("the group takes nothing for a second now: {refusal}");
        }
    }
    Ok(quotes.published())
}

fn main() -> Result<(), Box<dyn Error>> {
    let group = Node::builder().group("publisher").members(3);
    let node = group.clone().rank(0).join()?;
    let mut others = vec![group.clone().rank(1).join()?, group.rank(2).join()?];
    let mut quotes = node.publication()?;
    let es = Topic::new("md.es.quotes")?;

    publish(&mut quotes, &es, MESSAGES)?; // waits for the first view as well
    drop(others.pop()); // the view changes
    let last = publish(&mut quotes, &es, MESSAGES)?;
    quotes.wait_acknowledged(last, Duration::from_secs(10))?;
    println!("{last} messages are acknowledged: each member of the view has them");

    let report = node.close(Duration::from_secs(5))?;
    println!("closed: {report}");
    let refusal = publish(&mut quotes, &es, 1).expect_err("its node has ended");
    println!("one more is refused: {refusal}");
    Ok(())
}
