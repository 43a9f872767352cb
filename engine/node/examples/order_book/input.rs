//! Events: recorded market by order from a DBN file, or made up from a fixed seed.

use crate::book::{Action, Event};
use dbn::decode::DbnDecoder;
use dbn::{MboMsg, VersionUpgradePolicy};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// Reads the events of a file's first instrument, at most `limit`.
pub(crate) fn read(path: &Path, limit: usize) -> Result<Vec<Event>, String> {
    let unreadable =
        |why: &dyn std::fmt::Display| format!("can't read {}: {why}; give a DBN file of mbo", path.display());
    let file = BufReader::new(File::open(path).map_err(|error| unreadable(&error))?);
    let plain: Box<dyn Read> = match path.extension() {
        Some(end) if end == "zst" => Box::new(zstd::Decoder::with_buffer(file).map_err(|error| unreadable(&error))?),
        _ => Box::new(file),
    };
    let policy = VersionUpgradePolicy::AsIs;
    let mut decoder = DbnDecoder::with_upgrade_policy(plain, policy).map_err(|error| unreadable(&error))?;
    let (mut events, mut instrument) = (Vec::new(), None);
    while let Some(record) = decoder.decode_ref().map_err(|error| unreadable(&error))? {
        let Some(message) = record.get::<MboMsg>() else { continue };
        if *instrument.get_or_insert(message.hd.instrument_id) != message.hd.instrument_id {
            continue;
        }
        events.extend(event(message));
        if events.len() == limit {
            break;
        }
    }
    if events.is_empty() { Err(unreadable(&"it has no market-by-order records")) } else { Ok(events) }
}

/// What a record does to the book. Trades and fills repeat what the cancel that follows them does, so they do nothing.
fn event(message: &MboMsg) -> Option<Event> {
    let action = match message.action as u8 {
        b'A' => Action::Add,
        b'C' => Action::Cancel,
        b'M' => Action::Modify,
        b'R' => Action::Clear,
        _ => return None,
    };
    let is_bid = message.side as u8 == b'B';
    Some(Event { action, is_bid, size: message.size, price: message.price, order: message.order_id })
}

/// So many events around one price, the same each time: adds, cancels, modifications and trades of orders that rest.
pub(crate) fn synthetic(count: usize) -> Vec<Event> {
    let mut seed = 7_u64;
    let mut random = move |below: u64| {
        // SplitMix64: https://prng.di.unimi.it/splitmix64.c
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    };
    let (mut resting, mut next) = (Vec::new(), 1);
    let mut event = || {
        let draw = random(10);
        if resting.len() < 20 || draw < 4 {
            let is_bid = random(2) == 0;
            let distance = 1 + random(40) as i64;
            let price = 475_000 + if is_bid { -distance } else { distance };
            let added = Event { action: Action::Add, is_bid, size: 1 + random(50) as u32, price, order: next };
            (next, _) = (next + 1, resting.push(added));
            return added;
        }
        let place = random(resting.len() as u64) as usize;
        let order = resting[place];
        let size = 1 + random(order.size.into()) as u32;
        let action = [Action::Cancel, Action::Trade, Action::Modify][draw as usize % 3];
        match action {
            Action::Modify => resting[place].size = size,
            _ if size == order.size => drop(resting.swap_remove(place)),
            _ => resting[place].size -= size,
        }
        Event { action, size, ..order }
    };
    (0..count).map(|_| event()).collect()
}
