//! Golden bytes: every header and record as it is on the wire, written out by hand.
//!
//! Two versions of a program that disagree about a byte disagree about everything, and a test that encodes and decodes
//! with the same code can't detect it. Each field here carries a value of its own, so that a moved or swapped field is
//! visible.

use bourdon_wire::records::{
    BallotStep, Challenge, ClientAnswer, ClientPlace, ClientRequest, Congestion, Direct, DirectCall, End, Heartbeat,
    HeldRange, Link, Marker, MemberEntry, Nak, NakRange, OrderRun, PathReport, Ping, Progress, Row, RowEntry, Transfer,
    Unavailable, ViewAsk, ViewEntry, ViewInfo, ballot_steps, direct_steps, heartbeat_flags, link_steps, progress_flags,
    request_flags, transfer_steps,
};
use bourdon_wire::{
    Address, CausalEntry, ChannelId, ClientId, ClientTag, Datagram, DatagramHeader, DatagramNumber, Epoch, Fragment,
    FrameHeader, Frames, GroupId, HEADER_BYTES, Incarnation, InstanceId, Kind, MessageName, OrderNumber, Rank,
    Sequence, TopicId, TopicName, echo_bytes, flags, seal,
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
        InstanceId(0x0807_0605_0403_0201),
        Epoch(0x1413_1211),
        Rank(0x2211),
        Incarnation(0x4433_2211),
        ChannelId(0x6655),
    )
    .at(DatagramNumber(0x1615_1413_1211), Sequence(0x2222), OrderNumber(0x3333))
    .in_phase(0x125);
    let mut datagram = vec![0xAA; HEADER_BYTES + 10 + 2];
    datagram[HEADER_BYTES..HEADER_BYTES + 10].copy_from_slice(&hex("02000000 0700 3000 6869"));
    seal(&mut datagram, header, 1, 10, 0x0102_0304_0506_0708);
    // Magic, version, flags (the phase modulo 16 in the high four bits); checksum (of everything behind it); group;
    // epoch; instance.
    assert_golden(&datagram[..4], "4264 03 50");
    assert_golden(&datagram[8..24], "01020304 11121314 0102030405060708");
    // Rank, channel, incarnation: what a port may compare to drop its own multicasts.
    assert_golden(&datagram[24..32], "1122 5566 11223344");
    assert_golden(&echo_bytes(Rank(0x2211), ChannelId(0x6655), Incarnation(0x4433_2211)), "1122 5566 11223344");
    // Number and count in one word, first sequence, first order, send time.
    assert_golden(&datagram[32..64], "111213141516 0100 2222000000000000 3333000000000000 0807060504030201");
    // The frame, and padding that nothing old leaks through.
    assert_golden(&datagram[64..], "02000000 0700 3000 6869 0000");
    // The CRC32C value of RFC 3720.
    assert_eq!(crc32c::crc32c(b"123456789"), 0xE306_9283);
    assert_golden(&datagram[4..8], &format!("{:08x}", crc32c::crc32c(&datagram[8..]).swap_bytes()));
    let parsed = Datagram::parse(&datagram, GroupId(0x0403_0201)).unwrap();
    let header = parsed.header;
    assert_eq!((header.instance(), header.epoch()), (InstanceId(0x0807_0605_0403_0201), Epoch(0x1413_1211)));
    assert_eq!((header.number(), header.count()), (DatagramNumber(0x1615_1413_1211), 1));
    assert_eq!((parsed.messages, parsed.has(Kind::Row)), (1, false));
    assert!(parsed.header.is_of_phase(0x125) && parsed.header.is_of_phase(5) && !parsed.header.is_of_phase(0x126));
    assert!(!parsed.header.is_retransmitted());
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
        Kind::Ballot,
        Kind::View,
        Kind::ViewAsk,
        Kind::Ping,
        Kind::Marker,
        Kind::Transfer,
        Kind::Direct,
        Kind::Link,
    ];
    for (number, kind) in kinds.into_iter().enumerate() {
        assert_golden(FrameHeader::new(0, TopicId(0), kind, 0).as_bytes(), &format!("00000000 0000 {number:02x}00"));
    }
    assert_golden(FrameHeader::new(0, TopicId(0), Kind::Challenge, 0).as_bytes(), "00000000 0000 0010");
    assert_golden(FrameHeader::new(0, TopicId(0), Kind::Progress, 0).as_bytes(), "00000000 0000 0110");
    assert_golden(FrameHeader::new(0, TopicId(0), Kind::Congestion, 0).as_bytes(), "00000000 0000 0210");
    assert_golden(FrameHeader::new(0, TopicId(0), Kind::PathReport, 0).as_bytes(), "00000000 0000 0310");
    let bits = [flags::FIRST, flags::LAST, flags::TIMED, flags::CLIENT, flags::CAUSAL, flags::NAMED, flags::AFTER];
    assert_eq!(bits, [0x10, 0x20, 0x40, 0x80, 0x100, 0x200, 0x400]);
}

#[test]
fn data_frame_with_every_extension() {
    // Length 56, topic 9, kind data, first, timed, client, causal; then a fragment at offset 0 of 100 bytes, the time,
    // the client and its sequence, two causal entries, two bytes of payload: 8 + 8 + 16 + 2 + 20 + 2.
    let bytes = hex("38000000 0900 d001 64000000 00000000 0100000000000000 0200000000000000 0300000000000000 \
         0200 0500 0600000000000000 0700 0800000000000000 6869");
    assert_eq!(Frames::new(&bytes, 1).check(), Some((0, 0)));
    let frame = Frames::new(&bytes, 1).next().unwrap();
    assert_eq!((frame.topic, frame.kind(), frame.ends_message()), (TopicId(9), Some(Kind::Data), false));
    let head = frame.data().unwrap();
    assert_eq!(head.fragment, Some(Fragment::new(100, 0)));
    assert_eq!(head.intended_send_ns, Some(1));
    assert_eq!(head.client, Some(ClientTag::new(ClientId(2), Sequence(3))));
    assert_eq!(head.causal, [CausalEntry::new(Rank(5), Sequence(6)), CausalEntry::new(Rank(7), Sequence(8))]);
    assert_eq!(head.payload, b"hi");
}

#[test]
fn a_message_that_comes_after_one_of_another_group() {
    // Group, instance, epoch, rank, incarnation, sequence; the extension comes after the name.
    let at = (InstanceId(4), Epoch(5));
    let name = MessageName::new(GroupId(0x0403_0201), at, (Rank(6), Incarnation(8)), Sequence(7));
    let after = "01020304 0400000000000000 0500000000000000 0600 08000000 0700000000000000";
    assert_golden(name.as_bytes(), after);
    assert_eq!((name.group(), name.instance(), name.epoch()), (GroupId(0x0403_0201), at.0, at.1));
    assert_eq!((name.rank(), name.incarnation(), name.sequence()), (Rank(6), Incarnation(8), Sequence(7)));
    let topic = TopicId::of("a").0.swap_bytes();
    let bytes = hex(&format!("26000000 {topic:04x} 3006 01 61 {after} 6869"));
    assert_eq!(Frames::new(&bytes, 1).check(), Some((1, 0)));
    let head = Frames::new(&bytes, 1).next().unwrap().data().unwrap();
    assert_eq!((head.name, head.after, head.payload), (Some("a"), Some(name), &b"hi"[..]));
    // A byte too few.
    let short = hex(&format!("21000000 0000 3004 {}", &after[..after.len() - 2]));
    assert_eq!(Frames::new(&short, 1).check(), None);
    let exact = hex(&format!("22000000 0000 3004 {after}"));
    assert_eq!(Frames::new(&exact, 1).check(), Some((1, 0)));
}

#[test]
fn a_message_that_carries_its_topics_name() {
    // Length 8, the topic's id, kind data, whole, named; the name behind its length, two bytes of payload.
    let name = TopicName::new("md.es").unwrap();
    assert_eq!(name.id(), TopicId::of("md.es"));
    let mut space = [0xAA; 8];
    name.write(&mut space);
    assert_golden(&space, "05 6d642e6573 aaaa");
    let bytes = hex(&format!("08000000 {:04x} 3002 05 6d642e6573 6869", name.id().0.swap_bytes()));
    assert_eq!(Frames::new(&bytes, 1).check(), Some((1, 0)));
    let head = Frames::new(&bytes, 1).next().unwrap().data().unwrap();
    assert_eq!((head.name, head.payload), (Some("md.es"), &b"hi"[..]));
    // The name of another id, and no name at all.
    for wrong in ["08000000 0100 3002 05 6d642e6573 6869", "01000000 0100 3002 00", "02000000 0100 3002 05 61"] {
        assert_eq!(Frames::new(&hex(wrong), 1).check(), None, "{wrong}");
    }
    // A client's: after the record.
    let mut bytes = hex("30000000 0000 0600").to_vec();
    bytes[4..6].copy_from_slice(&name.id().0.to_le_bytes());
    bytes.extend(hex(&format!("0100000000000000 0200000000000000 {ADDRESS} 0200 00000000 05 6d642e6573 6869")));
    assert_eq!(Frames::new(&bytes, 1).check(), Some((0, 1 << Kind::ClientRequest as u16)));
    let body = Frames::new(&bytes, 1).next().unwrap().body;
    let message = ClientRequest::read_all(body).unwrap();
    assert_eq!((message.fragment, message.name, message.payload), (None, Some("md.es"), &b"hi"[..]));
    // And a fragment of it: bytes 3 and 4 of 5; not bytes 4 and 5.
    for (offset, fits) in [("03000000", true), ("04000000", false)] {
        let mut bytes = hex("38000000 0000 0600");
        bytes[4..6].copy_from_slice(&name.id().0.to_le_bytes());
        let rest = format!("1200 00000000 05000000 {offset} 05 6d642e6573 6869");
        bytes.extend(hex(&format!("0100000000000000 0200000000000000 {ADDRESS} {rest}")));
        assert_eq!(Frames::new(&bytes, 1).check().is_some(), fits);
        let read = ClientRequest::read_all(Frames::new(&bytes, 1).next().unwrap().body);
        let read = read.map(|message| (message.fragment, message.name, message.payload));
        assert_eq!(read, fits.then_some((Some(Fragment::new(5, 3)), Some("md.es"), &b"hi"[..])));
    }
}

#[test]
fn order_run() {
    let record = OrderRun::new(Rank(0x0102), ChannelId(0x0304), Sequence(0x0A0B), 0x0506);
    assert_golden(record.as_bytes(), "0201 0403 06050000 0b0a000000000000");
}

#[test]
fn row_and_entries() {
    let row = Row { reached_phase: 1.into(), delivered_order: 2.into(), heard_from: 5.into(), progress: 4.into() };
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
        heard_from: 0x0102.into(),
        reached_phase: 0x0506.into(),
        link_port: 0x0304.into(),
        first_sequence: 0x0708.into(),
        birth: 0x090a.into(),
        members: 0x0b0c.into(),
        version_low: 0x0d,
        version_high: 0x0e,
    };
    let golden = "0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 06000000 0300";
    assert_golden(
        record.as_bytes(),
        &format!(
            "{golden} {ADDRESS} 0201000000000000 0605000000000000 0403 0807000000000000 {}",
            "0a09000000000000 0c0b000000000000 0d 0e"
        ),
    );
    use heartbeat_flags::{BARRIER, FORMED, LEARNER, LEAVING, READY, RETURNS, SOLICIT, WEDGED};
    assert_eq!([SOLICIT, FORMED, READY, LEAVING, WEDGED, LEARNER, BARRIER, RETURNS], [1, 2, 4, 8, 16, 32, 64, 256]);
}

#[test]
fn nak_and_ranges() {
    let record =
        Nak { rank: 1.into(), channel: 2.into(), reply_to: address(), cookie: 0x0102.into(), ranges: 3.into() };
    assert_golden(record.as_bytes(), &format!("0100 0200 {ADDRESS} 0201000000000000 0300"));
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
        since_taken: 0.into(),
    };
    assert_golden(record.as_bytes(), &format!("0100000000000000 0200000000000000 {ADDRESS} 0100 00000000"));
    let record = ClientAnswer::new(ClientId(1), Sequence(2), 3);
    assert_golden(record.as_bytes(), "0100000000000000 0200000000000000 0300000000000000");
    let place = ClientPlace { cookie: 4.into(), max_message_bytes: 5.into(), received_bytes: 6.into(), next: 7.into() };
    assert_golden(place.as_bytes(), "0400000000000000 05000000 06000000 0700000000000000");
    let both = [record.as_bytes(), place.as_bytes()].concat();
    assert_eq!(ClientAnswer::read_all(&both), Some((&record, Some(&place))));
    assert_eq!(ClientAnswer::read_all(&both[..47]), Some((&record, None)), "an older member's");
}

#[test]
fn ballot_step_and_its_lists() {
    let record = BallotStep {
        step: ballot_steps::STATE,
        members: 1,
        held: 2,
        held_ranges: 1,
        cut: 1,
        cut_ranges: 1,
        sequencer: 7,
        reserved: 0,
        ballot: 8.into(),
        accepted: 9.into(),
        phase: 10.into(),
        cut_phase: 11.into(),
        birth: 12.into(),
        leavers: 13.into(),
    };
    let golden = "02 01 02 01 01 01 07 00 0800000000000000 0900000000000000 0a00000000000000 0b00000000000000 \
                  0c00000000000000 0d00000000000000";
    assert_golden(record.as_bytes(), golden);
    // A member; two ends held and a range beyond; an end of the cut and a range beyond.
    let lists =
        "0100 02000000  030000000000 040000000100  0500 0600 070000000000  080000000000  0900 0a00 0b0000000000";
    let body = hex(&format!("{golden} {lists}"));
    let (read, lists) = BallotStep::read_all(&body).unwrap();
    assert_eq!(*read, record);
    assert_eq!(lists.members, [MemberEntry { rank: 1.into(), incarnation: 2.into() }]);
    assert_eq!(lists.held.iter().map(End::get).collect::<Vec<_>>(), [DatagramNumber(3), DatagramNumber(1 << 32 | 4)]);
    let range = |rank: u16, count: u16, first: u64| HeldRange {
        rank: rank.into(),
        count: count.into(),
        first: End::new(DatagramNumber(first)),
    };
    assert_eq!(lists.held_ranges, [range(5, 6, 7)]);
    assert_eq!(lists.cut, [End::new(DatagramNumber(8))]);
    assert_eq!(lists.cut_ranges, [range(9, 10, 11)]);
    use ballot_steps::{ACCEPT, DECIDE, PREPARE, PROPOSE, REFUSE, STATE};
    assert_eq!([PREPARE, STATE, PROPOSE, ACCEPT, REFUSE, DECIDE], [1, 2, 3, 4, 5, 6]);
}

#[test]
fn member_entry_end_and_held_range() {
    assert_golden(MemberEntry { rank: 0x0102.into(), incarnation: 0x0304_0506.into() }.as_bytes(), "0201 06050403");
    assert_golden(End::new(DatagramNumber(0x0102_0304_0506)).as_bytes(), "06050403 0201");
    let range = HeldRange { rank: 0x0102.into(), count: 0x0304.into(), first: End::new(DatagramNumber(5)) };
    assert_golden(range.as_bytes(), "0201 0403 05000000 0000");
    // A number that does not fit 48 bits becomes the highest that does.
    assert_eq!(End::new(DatagramNumber(u64::MAX)).get(), DatagramNumber((1 << 48) - 1));
}

#[test]
fn view_info_and_entries() {
    let record = ViewInfo {
        entries: 2.into(),
        members: 1.into(),
        sequencer: 3.into(),
        barriers: 0.into(),
        first_order: 4.into(),
        phase: 5.into(),
        configuration: 6.into(),
        birth: 7.into(),
        nonce: 8.into(),
    };
    let golden = "0200 0100 0300 0000 0400000000000000 0500000000000000 0600000000000000 \
         0700000000000000 0800000000000000";
    assert_golden(record.as_bytes(), golden);
    let entry = |rank: u16, incarnation: u32, first: u64| ViewEntry {
        rank: rank.into(),
        incarnation: incarnation.into(),
        first_sequence: first.into(),
    };
    let body = hex(&format!("{golden} 0300 04000000 0500000000000000 0600 00000000 0700000000000000"));
    let (read, entries) = ViewInfo::read_all(&body).unwrap();
    assert_eq!((*read, entries), (record, &[entry(3, 4, 5), entry(6, 0, 7)][..]));
}

#[test]
fn view_ask_and_ping() {
    let ask = ViewAsk { reply_to: address(), nonce: 0x0102.into(), cookie: 0x0304.into() };
    assert_golden(ask.as_bytes(), &format!("{ADDRESS} 0201000000000000 0403000000000000"));
    let ping = Ping { nonce: 0x0102.into(), reply_to: address(), answer: 1.into() };
    assert_golden(ping.as_bytes(), &format!("0201000000000000 {ADDRESS} 0100"));
}

#[test]
fn progress() {
    let record = Progress {
        reply_to: address(),
        cookie: 0x0304.into(),
        delivered: 0x0506.into(),
        window: 0x0708.into(),
        rank: 0x090a.into(),
        flags: progress_flags::ENDED.into(),
    };
    let numbers = "0403000000000000 0605000000000000 08070000 0a09 0100";
    assert_golden(record.as_bytes(), &format!("{ADDRESS} {numbers}"));
}

#[test]
fn congestion() {
    let record = Congestion {
        reply_to: address(),
        cookie: 0x0304.into(),
        from: 0x0506.into(),
        lost: 0x0708.into(),
        rank: 0x090a.into(),
    };
    let numbers = "0403000000000000 0605000000000000 0807 0a09";
    assert_golden(record.as_bytes(), &format!("{ADDRESS} {numbers}"));
}

#[test]
fn challenge() {
    let record = Challenge { asked: 0x0102.into(), cookie: 0x0304.into() };
    assert_golden(record.as_bytes(), "0201000000000000 0403000000000000");
}

#[test]
fn marker() {
    let record = Marker { phase: 1.into(), sequence: 2.into(), carries: 3.into() };
    assert_golden(record.as_bytes(), "0100000000000000 0200000000000000 0300000000000000");
    assert_eq!(Marker::ASKS, 2);
}

#[test]
fn transfer() {
    let record = Transfer {
        step: transfer_steps::PART.into(),
        donor: 1.into(),
        ticket: 3.into(),
        reply_to: address(),
        part: 4.into(),
        count: 5.into(),
        total_bytes: 6.into(),
        part_bytes: 7.into(),
        checksum: 8.into(),
        cookie: 9.into(),
    };
    let golden =
        format!("0200 0100 03000000 {ADDRESS} 04000000 05000000 0600000000000000 07000000 08000000 0900000000000000");
    assert_golden(record.as_bytes(), &golden);
    use transfer_steps::{PART, REFUSE, REQUEST_SNAPSHOT, TOO_LARGE};
    assert_eq!([REQUEST_SNAPSHOT, PART, REFUSE, TOO_LARGE], [1, 2, 3, 4]);
}

#[test]
fn path_report() {
    let record = PathReport {
        padded: 1.into(),
        missing: 2.into(),
        padded_bytes: 3.into(),
        data_bytes: 4.into(),
        missing_bytes: 5.into(),
        reserved: 6.into(),
    };
    assert_golden(record.as_bytes(), "0100000000000000 0200000000000000 0300 0400 0500 0600");
}

#[test]
fn link() {
    let record = Link {
        sequence: 1.into(),
        acknowledged: 2.into(),
        step: link_steps::GRANT.into(),
        rank: 3.into(),
        to: 7.into(),
        number: 4.into(),
        epoch: 5.into(),
        other: 6.into(),
    };
    let golden = "0100000000000000 0200000000000000 0a00 0300 0700 0400000000000000 0500000000000000 0600000000000000";
    assert_golden(record.as_bytes(), golden);
    let named = [record.as_bytes(), b"\x01a"].concat();
    assert_eq!(Link::read_all(&named), Some((&record, Some("a"))));
    let cut = [record.as_bytes(), b"\x02a"].concat();
    assert_eq!(Link::read_all(&cut), None);
    use link_steps::{ELECTION, END, LEADS, REQUEST, RESIGNED, STATE_SENT, WANT};
    assert_eq!([STATE_SENT, LEADS, REQUEST, WANT, ELECTION, RESIGNED, END], [1, 4, 8, 15, 16, 21, 22]);
}

#[test]
fn direct() {
    let record = Direct {
        step: direct_steps::SEND.into(),
        sender_id: 2.into(),
        sequence: 3.into(),
        oldest: 4.into(),
        sent_ns: 5.into(),
        reply_to: address(),
    };
    let golden = format!("0100 0200000000000000 0300000000000000 0400000000000000 0500000000000000 {ADDRESS}");
    assert_golden(record.as_bytes(), &golden);
    let call = DirectCall { call: 6.into(), patience_ns: 7.into() };
    assert_golden(call.as_bytes(), "0600000000000000 0700000000000000");
    use direct_steps::{BROADCAST, BUSY, DECLINE, ECHO, PROBE, REPLY, REQUEST, SEND, TAKEN};
    let steps = [SEND, TAKEN, BUSY, PROBE, ECHO, BROADCAST, REQUEST, REPLY, DECLINE];
    assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
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
