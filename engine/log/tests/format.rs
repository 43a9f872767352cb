//! The format's bytes, and that any bytes have an answer.

use bourdon_log::format::{
    HeaderFault, Parsed, Place, Record, SegmentHeader, encode, encode_mark, encoded_bytes, parse,
};
use bourdon_log::scan::Scan;
use fastrand::Rng;

const PLACE: Place = Place { instance: 2, generation: 3, mutant: None };

const HEADER: &str = "626f7572646c6f670100000000000000030000000000000002000000000000000500000000000000\
                      07000000000000000000010000000000000000005a60a0d7";
const RECORDS: &str = "6d34705332c44b416252656305000000050000000000000001000000000000000700000000000000\
                       04000000000000007072696365000000cd12f55fcd12f55f624d726b000000000600000000000000\
                       000000000000000000000000000000000600000000000000";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A change of these bytes is a change of the format: raise its version.
#[test]
fn golden_bytes() {
    let header = SegmentHeader { generation: 3, instance: 2, first_position: 5, time_ns: 7, capacity_bytes: 65_536 };
    assert_eq!(hex(&header.encode()), HEADER);
    let mut bytes = Vec::new();
    encode(&mut bytes, PLACE, 4096, &Record { position: 5, epoch: 1, time_ns: 7, bytes: b"price" }, 4);
    let offset = 4096 + bytes.len() as u64;
    encode_mark(&mut bytes, PLACE, offset, 6);
    assert_eq!(hex(&bytes), RECORDS);
}

#[test]
fn a_header_comes_back_and_a_later_version_is_recognised() {
    let header = SegmentHeader { generation: 1, instance: 2, first_position: 3, time_ns: 4, capacity_bytes: 5 };
    let mut bytes = header.encode();
    assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
    bytes[8] = 9;
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Damaged), "a flipped bit is no later version");
    let sum = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&sum.to_le_bytes());
    assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderFault::Future(9)));
}

#[test]
fn a_record_is_valid_at_its_own_place_only() {
    let mut bytes = vec![0; 4096];
    let record = Record { position: 5, epoch: 1, time_ns: 7, bytes: b"price" };
    encode(&mut bytes, PLACE, 4096, &record, 4);
    assert_eq!(parse(&bytes, PLACE, 4096), Parsed::Record { record, synced: 4, end: 4096 + 56 });
    assert_eq!(encoded_bytes(5), 56);
    for place in [Place { generation: 4, ..PLACE }, Place { instance: 3, ..PLACE }] {
        assert_eq!(parse(&bytes, place, 4096), Parsed::Nothing);
    }
    let moved = [&[0; 8], &bytes[..]].concat();
    assert_eq!(parse(&moved, PLACE, 4104), Parsed::Nothing, "a record in a payload is none");
    assert_eq!(parse(&bytes[..4096 + 50], PLACE, 4096), Parsed::Torn { position: 5 });
}

#[test]
fn any_bytes_have_an_answer() {
    let mut rng = Rng::with_seed(1);
    for _ in 0..2000 {
        let length = rng.usize(..9000);
        let mut bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        let _ = SegmentHeader::decode(&bytes);
        if bytes.len() > 4096 {
            let mut records = Vec::new();
            for position in 0..3 {
                let record = Record { position, epoch: 0, time_ns: 0, bytes: &[1; 100] };
                let offset = 4096 + records.len() as u64;
                encode(&mut records, PLACE, offset, &record, position);
            }
            let length = records.len().min(bytes.len() - 4096);
            bytes[4096..4096 + length].copy_from_slice(&records[..length]);
            let at = rng.usize(..bytes.len());
            bytes[at] ^= 1 << rng.u8(..8);
        }
        let limit = rng.bool().then(|| rng.u64(..6));
        assert!(Scan::new(&bytes, PLACE, rng.u64(..3), limit).count() <= 6);
    }
}
