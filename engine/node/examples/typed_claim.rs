//! Writes a message where it is sent from, and reads it where it was received: no copy on either side.

use bourdon::{Node, Subscribe, Topic};
use std::error::Error;
use zerocopy::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Little-endian and without alignment: it reads the same on every host.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Trade {
    instrument: U32,
    price: I64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let trades = Topic::<Trade>::typed("md.es.trades")?;
    let mut node = Node::builder().group("typed-claim").inline(Subscribe::all())?;
    while !node.is_formed() {
        node.poll(64, |_| {})?;
    }
    let mut trade = node.try_claim_as(&trades)?;
    (trade.instrument, trade.price) = (7.into(), 475_025.into());
    trade.commit();
    let mut seen = false;
    while !seen {
        node.poll(64, |delivery| {
            if let Some(trade) = delivery.message().and_then(|message| trades.read(message)) {
                println!("instrument {} traded at {}", trade.instrument, trade.price);
                seen = true;
            }
        })?;
    }
    Ok(())
}
