//! The lowest latency: the loop of the strategy polls the node itself, without a pause. An order goes out within the
//! call that flushes it.

use bourdon::{Delivery, Node, Subscribe, Topic};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut node = Node::builder().group("spinning").inline(Subscribe::to("md.**").and("orders"))?;
    let (quotes, orders) = (Topic::new("md.es.quotes")?, Topic::new("orders")?);
    let (mut published, mut due, mut sent, mut filled) = (0, false, 0, 0);
    while filled < 3 {
        node.poll(64, |delivery| match delivery {
            Delivery::Message(message) if message.name == Some("orders") => filled += 1,
            Delivery::Message(_) => due = true, // the strategy answers a quote with an order
            Delivery::Event(event) => println!("{event}"),
            _ => {}
        })?;
        // Where a market would be: a quote after each order.
        if published == sent && node.try_publish(&quotes, b"4750.25 4750.50").is_ok() {
            published += 1;
        }
        if due {
            match node.try_publish(&orders, b"buy 1 at 4750.50") {
                Ok(_) => {
                    (due, sent) = (false, sent + 1);
                    node.flush()?;
                }
                Err(refusal) if refusal.is_transient() => {} // the next round tries again
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
    println!("{filled} orders were filled");
    Ok(())
}
