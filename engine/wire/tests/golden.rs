//! Golden bytes: every header and record as it stands on the wire, written out by hand.
//!
//! Two versions of a program that disagree about a byte disagree about everything, and a test that encodes and decodes
//! with the same code can't see it. Each field here carries a value of its own, so that a moved or swapped field shows.

use bourdon_wire::records::{
    ClientAnswer, ClientRequest, Heartbeat, Nak, NakRange, OrderRun, Row, RowEntry, Unavailable, heartbeat_flags,
    request_flags,
};
use bourdon_wire::{
    Address, CausalEntry, ChannelId, ClientId, ClientTag, Datagram, DatagramHeader, DatagramNumber, Epoch, FrameHeader,
    Frames, GroupId, HEADER_BYTES, Incarnation, Kind, OrderNumber, Rank, Sequence, TopicId, echo_bytes, flags, seal,
};
use std::net::SocketAddr;
use zerocopy::IntoBytes;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn assert_golden(bytes: &[u8], golden: &str) {
    assert_eq!(bytes, hex(golden), "\nis:     {bytes:02x?}\nshould: {golden}");
}

fn address() -> Address {
    SocketAddr::from(([10, 1, 2, 3], 0x1234)).into()
}

const ADDRESS: &str = "00000000 00000000 0000ffff 0a010203 3412";

#[test]
fn datagram_header() {
    let header = DatagramHeader::new(
        GroupId(0x0403_0201),
        Epoch(0x0807_0605_0403_0201),
        Rank(0x2211),
        Incarnation(0x4433_2211),
        ChannelId(0x6655),
    )
    .at(DatagramNumber(0x1111), Sequence(0x2222), OrderNumber(0x3333));
    let mut datagram = vec![0xAA; HEADER_BYTES + 10 + 2];
    datagram[HEADER_BYTES..HEADER_BYTES + 10].copy_from_slice(&hex("02000000 0700 3000 6869"));
    seal(&mut datagram, header, 1, 10, 0x0102_0304_0506_0708);
    // Magic, version, flags; checksum (of everything behind it); group; count; length; epoch.
    assert_golden(&datagram[..4], "4264 01 00");
    assert_golden(&datagram[8..24], "01020304 0100 0a00 0102030405060708");
    // Rank, channel, incarnation: what a port may compare to drop its own multicasts.
    assert_golden(&datagram[24..32], "1122 5566 11223344");
    assert_golden(&echo_bytes(Rank(0x2211), ChannelId(0x6655), Incarnation(0x4433_2211)), "1122 5566 11223344");
    // Number, first sequence, first order, send time.
    assert_golden(&datagram[32..64], "1111000000000000 2222000000000000 3333000000000000 0807060504030201");
    // The frame, and padding that nothing old leaks through.
    assert_golden(&datagram[64..], "02000000 0700 3000 6869 0000");
    // CRC32C is what RFC 3720 says it is.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    assert_golden(&datagram[4..8], &format!("{:08x}", crc32c::crc32c(&datagram[8..]).swap_bytes()));
    let parsed = Datagram::parse(&datagram, GroupId(0x0403_0201)).unwrap();
    assert_eq!((parsed.messages, parsed.has_row), (1, false));
}

#[test]
fn frame_header_and_kinds() {
    assert_golden(FrameHeader::new(0x0102, TopicId(0x0304), Kind::Data, flags::WHOLE).as_bytes(), "02010000 0403 3000");
    let kinds = [
        Kind::Data,
        Kind::OrderRun,
        Kind::Row,
        Kind::Heartbeat,
        Kind::Nak,
        Kind::Unavailable,
        Kind::ClientRequest,
        Kind::ClientAnswer,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_golden(FrameHeader::new(0, TopicId(0), kind, 0).as_bytes(), &format!("00000000 0000 0{number}00"));
    }
    let bits = [flags::FIRST, flags::LAST, flags::TIMED, flags::CLIENT, flags::CAUSAL];
    assert_eq!(bits, [0x10, 0x20, 0x40, 0x80, 0x100]);
}

#[test]
fn data_frame_with_every_extension() {
    // Length 56, topic 9, kind data, first, timed, client, causal; then a fragment at offset 0 of 100 bytes, the time, the
    // client and its sequence, two causal entries, two bytes of payload: 8 + 8 + 16 + 2 + 20 + 2.
    let bytes = hex("38000000 0900 d001 64000000 00000000 0100000000000000 0200000000000000 0300000000000000 \
         0200 0500 0600000000000000 0700 0800000000000000 6869");
    assert_eq!(Frames::new(&bytes, 1).check(), Some((0, false)));
    let frame = Frames::new(&bytes, 1).next().unwrap();
    assert_eq!((frame.topic, frame.kind(), frame.ends_message()), (TopicId(9), Some(Kind::Data), false));
    let head = frame.data().unwrap();
    assert_eq!(head.fragment, Some((100, 0)));
    assert_eq!(head.intended_send_ns, Some(1));
    assert_eq!(head.client, Some(ClientTag::new(ClientId(2), Sequence(3))));
    assert_eq!(head.causal, [CausalEntry::new(Rank(5), Sequence(6)), CausalEntry::new(Rank(7), Sequence(8))]);
    assert_eq!(head.payload, b"hi");
}

#[test]
fn order_run() {
    let record = OrderRun::new(Rank(0x0102), ChannelId(0x0304), Sequence(0x0A0B), 0x0506);
    assert_golden(record.as_bytes(), "0201 0403 06050000 0b0a000000000000");
}

#[test]
fn row_and_entries() {
    let row = Row { held_order: 1.into(), delivered_order: 2.into(), heard_from: 5.into(), progress: 4.into() };
    assert_golden(row.as_bytes(), "0100000000000000 0200000000000000 0500000000000000 0400000000000000");
    let entry = RowEntry::new(DatagramNumber(0x0102), DatagramNumber(0x0304));
    assert_golden(entry.as_bytes(), "0201000000000000 0403000000000000");
}

#[test]
fn heartbeat() {
    let record = Heartbeat {
        next_number: 1.into(),
        oldest_number: 2.into(),
        next_sequence: 3.into(),
        next_order: 4.into(),
        configuration: 5.into(),
        window_bytes: 6.into(),
        flags: (heartbeat_flags::SOLICIT | heartbeat_flags::FORMED).into(),
        address: address(),
    };
    let golden = "0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 06000000 0300";
    assert_golden(record.as_bytes(), &format!("{golden} {ADDRESS}"));
}

#[test]
fn nak_and_ranges() {
    let record = Nak { rank: 1.into(), channel: 2.into(), reply_to: address(), ranges: 3.into() };
    assert_golden(record.as_bytes(), &format!("0100 0200 {ADDRESS} 0300"));
    assert_golden(NakRange::new(DatagramNumber(0x0102), 7).as_bytes(), "0201000000000000 07000000");
}

#[test]
fn unavailable() {
    let record = Unavailable { rank: 1.into(), channel: 2.into(), reserved: 0.into(), oldest_number: 3.into() };
    assert_golden(record.as_bytes(), "0100 0200 00000000 0300000000000000");
}

#[test]
fn client_request_and_answer() {
    let record = ClientRequest {
        client: 1.into(),
        sequence: 2.into(),
        reply_to: address(),
        flags: request_flags::SKIP.into(),
        under_way: 0.into(),
    };
    assert_golden(record.as_bytes(), &format!("0100000000000000 0200000000000000 {ADDRESS} 0100 00000000"));
    let record = ClientAnswer::new(ClientId(1), Sequence(2), 3);
    assert_golden(record.as_bytes(), "0100000000000000 0200000000000000 0300000000000000");
}

#[test]
fn names_hash_to_the_same_ids_for_ever() {
    // FNV-1a of "a" is 0xaf63dc4c8601ec8c (draft-eastlake-fnv); its halves, and theirs, folded onto each other.
    assert_eq!((GroupId::of("a"), TopicId::of("a")), (GroupId(0x2962_30c0), TopicId(0x19a2)));
}

#[test]
fn client_tag_and_causal_entry() {
    assert_eq!(ClientTag::new(ClientId(1), Sequence(2)).as_bytes(), hex("0100000000000000 0200000000000000"));
    assert_eq!(CausalEntry::new(Rank(1), Sequence(2)).as_bytes(), hex("0100 0200000000000000"));
}
