//! Recorded events in Databento's binary encoding (DBN): files, several one after another, and fragments.
//!
//! A file is a head, `DBN` and a version, then records; a fragment is records alone, as long recordings are cut. A
//! record begins with its length in words of four bytes and its type. No type reads as the second letter of a head,
//! so a head between two records is found by looking at each.

use super::Record;
use dbn::decode::dbn::{Decoder, RecordDecoder};
use dbn::{MboMsg, Mbp1Msg, Mbp10Msg, RType, RecordRef, TradeMsg, VersionUpgradePolicy};

const MAGIC: &[u8] = b"DBN";
/// Bytes of the common head of all records.
const HEAD_BYTES: usize = 16;

/// Whether it begins with the head of a file.
pub(super) fn is_file(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Whether all of it are records of known types.
pub(super) fn is_fragment(mut bytes: &[u8]) -> bool {
    while let Some((record, rest)) = split_record(bytes) {
        if RType::try_from(record[1]).is_err() {
            return false;
        }
        bytes = rest;
    }
    bytes.is_empty()
}

/// The records of all files and fragments, at most so many.
pub(super) fn records(bytes: &[u8], most: usize) -> Result<Vec<Record>, String> {
    let (mut records, mut first_ns, mut rest) = (Vec::new(), None, bytes);
    let mut add = |record: RecordRef<'_>| {
        let received_ns = received_ns(&record);
        let first_ns = *first_ns.get_or_insert(received_ns);
        let snapshot = record.try_get::<MboMsg>().is_ok_and(|message| message.flags.is_snapshot());
        let payload: &[u8] = record.as_ref();
        records.push(Record { payload: payload.into(), at_ns: received_ns.saturating_sub(first_ns), snapshot });
        records.len() < most
    };
    let mut wants_more = true;
    while !rest.is_empty() && wants_more {
        let part = split_part(rest).ok_or("the recording is cut short; fetch the file again")?;
        rest = &rest[part.len()..];
        let damaged = |error: dbn::Error| format!("it is no valid DBN file ({error})");
        if part.starts_with(MAGIC) {
            let mut decoder = Decoder::with_upgrade_policy(part, VersionUpgradePolicy::AsIs).map_err(damaged)?;
            while wants_more && let Some(record) = decoder.decode_ref().map_err(damaged)? {
                wants_more = add(record);
            }
        } else {
            let mut decoder = RecordDecoder::new(part);
            while wants_more && let Some(record) = decoder.decode_ref().map_err(damaged)? {
                wants_more = add(record);
            }
        }
    }
    Ok(records)
}

/// When a record was received; of kinds that have no such time, and of earlier versions of a kind, when it was made.
fn received_ns(record: &RecordRef<'_>) -> u64 {
    let orders = record.try_get::<MboMsg>().map(|message| message.ts_recv);
    let trades = || record.try_get::<TradeMsg>().map(|message| message.ts_recv);
    let tops = || record.try_get::<Mbp1Msg>().map(|message| message.ts_recv);
    let books = || record.try_get::<Mbp10Msg>().map(|message| message.ts_recv);
    let received = orders.or_else(|_| trades()).or_else(|_| tops()).or_else(|_| books());
    received.unwrap_or_else(|_| record.header().ts_event)
}

/// The first file or fragment: up to the next head. None if it is cut short.
fn split_part(bytes: &[u8]) -> Option<&[u8]> {
    let mut place = 0;
    if bytes.starts_with(MAGIC) {
        let length = bytes.get(4..8)?.try_into().ok().map(u32::from_le_bytes)?;
        place = 8 + length as usize;
        bytes.get(..place)?;
    }
    while place < bytes.len() && !bytes[place..].starts_with(MAGIC) {
        place += split_record(&bytes[place..])?.0.len();
    }
    Some(&bytes[..place])
}

/// The first record, and what follows it.
fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = usize::from(*bytes.first()?) * 4;
    if length < HEAD_BYTES { None } else { bytes.split_at_checked(length) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dbn::encode::dbn::Encoder;
    use dbn::{Metadata, SType, Schema};

    fn message(received_ns: u64) -> MboMsg {
        MboMsg { ts_recv: received_ns, ..MboMsg::default() }
    }

    fn fragment(times_ns: &[u64]) -> Vec<u8> {
        times_ns.iter().flat_map(|time| message(*time).as_ref().to_vec()).collect()
    }

    fn file(times_ns: &[u64]) -> Vec<u8> {
        let metadata = Metadata::builder()
            .dataset("XNAS.ITCH")
            .schema(Some(Schema::Mbo))
            .start(0)
            .stype_in(Some(SType::RawSymbol))
            .stype_out(SType::InstrumentId)
            .build();
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, &metadata).expect("memory takes it");
        [bytes, fragment(times_ns)].concat()
    }

    fn times(bytes: &[u8]) -> Vec<u64> {
        records(bytes, 99).expect("it is whole").iter().map(|record| record.at_ns).collect()
    }

    #[test]
    fn files_one_after_another_and_fragments_are_read() {
        assert_eq!(times(&file(&[100, 250])), [0, 150]);
        assert_eq!(times(&fragment(&[100, 250])), [0, 150]);
        assert_eq!(times(&[file(&[100]), file(&[]), file(&[300, 301])].concat()), [0, 200, 201]);
        assert_eq!(times(&[fragment(&[100]), file(&[300])].concat()), [0, 200]);
        assert_eq!(records(&file(&[1, 2, 3]), 2).map(|records| records.len()), Ok(2));
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let (one, both) = (file(&[100]), [file(&[100]), file(&[300])].concat());
        let record_bytes = message(0).as_ref().len();
        for bytes in 1..both.len() {
            let is_whole = [one.len() - record_bytes, one.len(), both.len() - record_bytes].contains(&bytes);
            assert_eq!(records(&both[..bytes], 99).is_ok(), is_whole, "{bytes} bytes");
        }
        // A record that is shorter than its type is a message all the same, as it stands.
        assert_eq!(times(b"\x04\xa023456789abcdef"), [0]);
        assert!(records(b"DBN\x01\x10\x00\x00\x00abc", 9).is_err());
        assert!(is_fragment(&fragment(&[1, 2])) && !is_fragment(b"\x04\xff23456789abcdef"));
    }
}
