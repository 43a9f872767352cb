//! Decoders are total: any bytes give a value or a reason, never a panic, and valid ones come back as they were.

use bourdon_wire::records::{self, Heartbeat, NAK_RANGES_MAX, Nak, NakRange, Row, RowEntry};
use bourdon_wire::{
    Address, ChannelId, ClientId, ClientTag, Datagram, DatagramHeader, DatagramNumber, Discard, Epoch, FrameHeader,
    Frames, GroupId, HEADER_BYTES, Incarnation, InstanceId, Kind, OrderNumber, Rank, Sequence, TopicId, TopicName,
    checksum, flags, mark_retransmitted, seal, split_name,
};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const GROUP: GroupId = GroupId(7);

fn header(number: u64) -> DatagramHeader {
    DatagramHeader::new(GROUP, InstanceId(9), Epoch(1), Rank(2), Incarnation(3), ChannelId(0)).at(
        DatagramNumber(number),
        Sequence(number),
        OrderNumber(number),
    )
}

fn datagram(frames: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    for (frame_flags, body) in frames {
        let mut head = FrameHeader::new(body.len(), TopicId(1), Kind::Data, 0).as_bytes().to_vec();
        head[6..8].copy_from_slice(&frame_flags.to_le_bytes());
        bytes.extend(head);
        bytes.extend(body);
    }
    let length = bytes.len() - HEADER_BYTES;
    seal(&mut bytes, header(5), frames.len() as u16, length, 9);
    bytes
}

/// Walks everything a datagram offers, as a receiver would.
fn walk(bytes: &[u8]) -> Result<usize, Discard> {
    let datagram = Datagram::parse(bytes, GROUP)?;
    let mut seen = 0;
    for frame in datagram.frames() {
        seen += 1;
        match frame.kind() {
            Some(Kind::Data) => {
                let head = frame.data().expect("checked");
                assert!(head.name.is_none_or(|name| TopicName::new(name).is_ok_and(|name| name.id() == frame.topic)));
            }
            Some(Kind::Row) => drop(Row::read_all(frame.body).expect("checked")),
            Some(Kind::Nak) => drop(Nak::read_all(frame.body).expect("checked")),
            Some(Kind::Heartbeat) => drop(Heartbeat::read(frame.body).expect("checked")),
            Some(Kind::OrderRun) => drop(records::OrderRun::read(frame.body).expect("checked")),
            Some(Kind::Unavailable) => drop(records::Unavailable::read(frame.body).expect("checked")),
            Some(Kind::ClientRequest) => drop(records::ClientRequest::read_all(frame.body).expect("checked")),
            Some(Kind::ClientAnswer) => drop(records::ClientAnswer::read(frame.body).expect("checked")),
            Some(Kind::Ballot) => {
                let (_, lists) = records::BallotStep::read_all(frame.body).expect("checked");
                let longest = lists.members.len().max(lists.held.len()).max(lists.held_ranges.len());
                assert!(longest.max(lists.cut.len()).max(lists.cut_ranges.len()) <= 64);
                lists.held.iter().chain(lists.cut).for_each(|end| assert!(end.get().0 < 1 << 48));
            }
            Some(Kind::View) => {
                let (info, entries) = records::ViewInfo::read_all(frame.body).expect("checked");
                assert!(usize::from(info.members.get()) <= entries.len() && entries.len() <= 64);
            }
            Some(Kind::ViewAsk) => drop(records::ViewAsk::read(frame.body).expect("checked")),
            Some(Kind::Ping) => drop(records::Ping::read(frame.body).expect("checked")),
            Some(Kind::Marker) => drop(records::Marker::read(frame.body).expect("checked")),
            Some(Kind::Transfer) => drop(records::Transfer::read(frame.body).expect("checked")),
            Some(Kind::Direct) => drop(records::Direct::read(frame.body).expect("checked")),
            Some(Kind::Progress) => drop(records::Progress::read(frame.body).expect("checked")),
            Some(Kind::Congestion) => drop(records::Congestion::read(frame.body).expect("checked")),
            Some(Kind::PathReport) => drop(records::PathReport::read(frame.body).expect("checked")),
            Some(Kind::Challenge) => drop(records::Challenge::read(frame.body).expect("checked")),
            Some(Kind::Link) => drop(records::Link::read_all(frame.body).expect("checked")),
            None => {}
        }
    }
    assert_eq!(seen, usize::from(datagram.header.count()), "a parsed datagram can be walked to the end");
    Ok(seen)
}

fn reseal(bytes: &mut [u8]) {
    if bytes.len() >= HEADER_BYTES {
        let sum = checksum(bytes);
        bytes[..4].copy_from_slice(b"Bd\x02\0");
        bytes[4..8].copy_from_slice(&sum.to_le_bytes());
    }
}

fn frames() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let kind = prop_oneof![Just(flags::WHOLE), Just(flags::FIRST), Just(flags::LAST), 1u16..16, any::<u16>()];
    prop::collection::vec((kind, prop::collection::vec(any::<u8>(), 0..80)), 0..8)
}

/// A record with small counts in front, so that its lists have a chance to fit.
fn record() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let kind = prop_oneof![Just(Kind::Ballot), Just(Kind::View), Just(Kind::Marker), Just(Kind::Transfer)];
    let counts = prop::collection::vec(prop_oneof![0u8..3, Just(64u8), Just(65u8)], 7);
    (kind, counts, prop::collection::vec(any::<u8>(), 0..300)).prop_map(|(kind, counts, rest)| {
        let counts = counts.into_iter().flat_map(|count| [count, 0]);
        (kind as u16, counts.chain(rest).collect())
    })
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = walk(&bytes);
        let mut resealed = bytes;
        if resealed.len() >= HEADER_BYTES {
            resealed[8..12].copy_from_slice(&7u32.to_le_bytes());
        }
        reseal(&mut resealed);
        let _ = walk(&resealed);
    }

    #[test]
    fn any_single_change_behind_the_flags_is_noticed(at in 4usize..74, bit in 0u8..8) {
        let mut bytes = datagram(&[(flags::WHOLE, b"hi".to_vec())]);
        bytes[at] ^= 1 << bit;
        prop_assert!(walk(&bytes).is_err());
    }

    #[test]
    fn resealed_lies_are_walked_or_refused(
        frames in frames(),
        changes in prop::collection::vec((8usize..200, any::<u8>()), 0..6),
    ) {
        let mut bytes = datagram(&frames);
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        reseal(&mut bytes);
        let _ = walk(&bytes);
    }

    #[test]
    fn records_with_lists_are_walked_or_refused(records in prop::collection::vec(record(), 1..4)) {
        let _ = walk(&datagram(&records));
    }

    #[test]
    fn whole_messages_come_back_as_they_went(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20),
        padding in 0usize..50,
    ) {
        let frames: Vec<_> = payloads.iter().map(|payload| (flags::WHOLE, payload.clone())).collect();
        let mut bytes = datagram(&frames);
        let length = bytes.len() - HEADER_BYTES;
        bytes.resize(bytes.len() + padding, 0xEE);
        seal(&mut bytes, header(5), frames.len() as u16, length, 9);
        mark_retransmitted(&mut bytes);
        let parsed = Datagram::parse(&bytes, GROUP).unwrap();
        prop_assert!(parsed.header.is_retransmitted());
        prop_assert_eq!(usize::from(parsed.messages), payloads.len());
        let back: Vec<_> = parsed.frames().map(|frame| frame.data().unwrap().payload.to_vec()).collect();
        prop_assert_eq!(back, payloads);
    }

    #[test]
    fn addresses_come_back(address in any::<std::net::SocketAddr>()) {
        let there = Address::from(address);
        let back = std::net::SocketAddr::from(there);
        prop_assert_eq!(back.port(), address.port());
        prop_assert_eq!(back.ip(), address.ip().to_canonical());
    }
}

#[test]
fn each_reason_to_discard_has_its_name() {
    let good = datagram(&[(flags::WHOLE, b"hi".to_vec())]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        walk(&bytes)
    };
    assert_eq!(walk(&good), Ok(1));
    assert_eq!(walk(&good[..63]), Err(Discard::Foreign));
    assert_eq!(walk(&good[..70]), Err(Discard::Damaged));
    assert_eq!(changed(3, 2), Err(Discard::Keyed));
    assert_eq!(changed(0, b'b'), Err(Discard::Foreign));
    assert_eq!(changed(2, 9), Err(Discard::OtherVersion(9)));
    assert_eq!(changed(8, 8), Err(Discard::OtherGroup));
    assert_eq!(changed(70, 0xFF), Err(Discard::Damaged));
    assert_eq!(walk(&datagram(&[(Kind::Heartbeat as u16, vec![0; Heartbeat::BYTES - 1])])), Err(Discard::Malformed));
}

#[test]
fn numbers_that_no_process_can_reach_are_malformed() {
    let sealed = |header: DatagramHeader| {
        let mut bytes = vec![0; HEADER_BYTES];
        seal(&mut bytes, header, 0, 0, 0);
        walk(&bytes)
    };
    let most = (1 << 63) - 1;
    let zero = (DatagramNumber(0), Sequence(0), OrderNumber(0));
    let all = |most| header(0).at(DatagramNumber((1 << 48) - 1), Sequence(most), OrderNumber(most));
    assert_eq!(sealed(all(most)), Ok(0));
    assert_eq!(sealed(all(most + 1)), Err(Discard::Malformed));
    assert_eq!(sealed(header(0).at(zero.0, Sequence(u64::MAX), zero.2)), Err(Discard::Malformed));
    assert_eq!(sealed(header(0).at(zero.0, zero.1, OrderNumber(u64::MAX))), Err(Discard::Malformed));
    let late = DatagramHeader::new(GROUP, InstanceId(9), Epoch(1 << 31), Rank(2), Incarnation(3), ChannelId(0));
    assert_eq!(sealed(late), Err(Discard::Malformed));
    let mut heartbeat = [0xFF; Heartbeat::BYTES];
    assert_eq!(walk(&datagram(&[(Kind::Heartbeat as u16, heartbeat.to_vec())])), Err(Discard::Malformed));
    heartbeat[..24].fill(0);
    assert_eq!(walk(&datagram(&[(Kind::Heartbeat as u16, heartbeat.to_vec())])), Err(Discard::Malformed), "its birth");
    heartbeat[96..98].fill(0);
    assert_eq!(walk(&datagram(&[(Kind::Heartbeat as u16, heartbeat.to_vec())])), Ok(1));
    let marker = |phase: u64, sequence: u64| {
        let marker = records::Marker { phase: phase.into(), sequence: sequence.into(), carries: 0.into() };
        walk(&datagram(&[(Kind::Marker as u16, marker.as_bytes().to_vec())]))
    };
    assert_eq!(marker(most, most), Ok(1));
    assert_eq!((marker(most + 1, 0), marker(0, u64::MAX)), (Err(Discard::Malformed), Err(Discard::Malformed)));
    // Ballot, phase and the cut's phase of a ballot step; first order and phase of a view; the births of both.
    for (kind, bytes, places) in
        [(Kind::Ballot, records::BallotStep::BYTES, &[8, 24, 32][..]), (Kind::View, records::ViewInfo::BYTES, &[8, 16])]
    {
        for place in places {
            let mut body = vec![0; bytes];
            body[place + 7] = 0x7F;
            assert_eq!(walk(&datagram(&[(kind as u16, body.clone())])), Ok(1));
            body[place + 7] = 0x80;
            assert_eq!(walk(&datagram(&[(kind as u16, body)])), Err(Discard::Malformed));
        }
        let birth = if kind == Kind::Ballot { 40 } else { 32 };
        let mut body = vec![0; bytes];
        body[birth + 5] = 0xFF;
        assert_eq!(walk(&datagram(&[(kind as u16, body.clone())])), Ok(1));
        body[birth + 6] = 1;
        assert_eq!(walk(&datagram(&[(kind as u16, body)])), Err(Discard::Malformed));
    }
}

#[test]
fn lists_are_as_long_as_their_counts_and_bounded() {
    let nak = |count: u16, has: usize| {
        let record = Nak {
            rank: 0.into(),
            channel: 0.into(),
            reply_to: Address::default(),
            cookie: 0.into(),
            ranges: count.into(),
        };
        let mut body = record.as_bytes().to_vec();
        (0..has).for_each(|_| body.extend(NakRange::new(DatagramNumber(1), u32::MAX).as_bytes()));
        Nak::read_all(&body).map(|(_, ranges)| ranges.len())
    };
    assert_eq!(nak(2, 2), Some(2));
    assert_eq!((nak(3, 2), nak(1, 2)), (None, None));
    assert_eq!(nak(NAK_RANGES_MAX as u16, NAK_RANGES_MAX), Some(NAK_RANGES_MAX));
    assert_eq!(nak(NAK_RANGES_MAX as u16 + 1, NAK_RANGES_MAX + 1), None);
    let mut row = [0; Row::BYTES + RowEntry::BYTES + 1];
    assert!(Row::read_all(&row[..Row::BYTES + RowEntry::BYTES]).is_some());
    row[0] = 1;
    assert!(Row::read_all(&row).is_none(), "an entry cut short");
}

#[test]
fn the_lists_of_a_view_change_are_as_long_as_their_counts_and_bounded() {
    use records::{BallotStep, End, HeldRange, MemberEntry, ViewEntry, ViewInfo};
    // Counts of members, held, held ranges, cut, cut ranges; and how many bytes more or less than the counts require.
    let ballot = |counts: [u8; 5], more: isize| {
        let sizes = [MemberEntry::BYTES, End::BYTES, HeldRange::BYTES, End::BYTES, HeldRange::BYTES];
        let lists: usize = counts.iter().zip(sizes).map(|(count, size)| usize::from(*count) * size).sum();
        let mut body = vec![0; BallotStep::BYTES.saturating_add(lists).saturating_add_signed(more)];
        counts.iter().enumerate().for_each(|(i, n)| body[1 + i] = *n);
        BallotStep::read_all(&body).is_some()
    };
    assert!(ballot([0; 5], 0) && ballot([64; 5], 0) && ballot([1, 2, 3, 4, 5], 0));
    assert!(!ballot([1, 2, 3, 4, 5], 1) && !ballot([1, 2, 3, 4, 5], -1) && !ballot([0, 0, 0, 0, 1], -1));
    for list in 0..5 {
        let mut counts = [0; 5];
        counts[list] = 65;
        assert!(!ballot(counts, 0), "no view has 65 members");
        counts[list] = u8::MAX;
        assert!(!ballot(counts, 0));
    }
    let view = |entries: u16, members: u16, has: usize| {
        let mut body = vec![0; ViewInfo::BYTES + has * ViewEntry::BYTES];
        body[..2].copy_from_slice(&entries.to_le_bytes());
        body[2..4].copy_from_slice(&members.to_le_bytes());
        ViewInfo::read_all(&body).is_some()
    };
    assert!(view(64, 64, 64) && view(3, 0, 3) && view(0, 0, 0));
    assert!(!view(3, 4, 3) && !view(2, 2, 3) && !view(3, 3, 2) && !view(65, 1, 65));
}

#[test]
fn a_view_change_of_sixty_four_fits_the_smallest_datagram() {
    use records::{BallotStep, End, MemberEntry, ViewEntry, ViewInfo};
    let frame_bytes = bourdon_wire::MTU_MIN_BYTES - HEADER_BYTES - bourdon_wire::FRAME_HEADER_BYTES;
    assert!(BallotStep::BYTES + 64 * (MemberEntry::BYTES + 2 * End::BYTES) <= frame_bytes);
    assert!(ViewInfo::BYTES + 64 * ViewEntry::BYTES <= frame_bytes);
    assert!(Row::BYTES + 64 * RowEntry::BYTES <= frame_bytes);
}

#[test]
fn what_a_later_version_adds_is_stepped_over() {
    for kind in [0x1004, 0x100F, 0x8000 | flags::WHOLE] {
        let bytes = datagram(&[(kind, vec![1, 2, 3]), (flags::WHOLE, b"hi".to_vec())]);
        let parsed = Datagram::parse(&bytes, GROUP).unwrap();
        assert_eq!(parsed.messages, 1);
        let first = parsed.frames().next().unwrap();
        assert_eq!((first.kind(), first.ends_message()), (None, false));
    }
    let mut longer = vec![0; Heartbeat::BYTES + 8];
    longer[0] = 1;
    assert_eq!(walk(&datagram(&[(Kind::Heartbeat as u16, longer)])), Ok(1));
}

#[test]
fn extensions_that_do_not_fit_are_malformed() {
    let tag = ClientTag::new(ClientId(1), Sequence(2));
    let check = |frame_flags: u16, body: &[u8]| walk(&datagram(&[(frame_flags, body.to_vec())]));
    assert_eq!(check(flags::WHOLE | flags::CLIENT, tag.as_bytes()), Ok(1));
    assert_eq!(check(flags::WHOLE | flags::CLIENT, &tag.as_bytes()[1..]), Err(Discard::Malformed));
    assert_eq!(check(flags::WHOLE | flags::TIMED, &[0; 7]), Err(Discard::Malformed));
    assert_eq!(check(flags::WHOLE | flags::CAUSAL, &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Discard::Malformed));
    // A fragment that reaches beyond its message.
    assert_eq!(check(flags::FIRST, &[3, 0, 0, 0, 1, 0, 0, 0, 9, 9]), Ok(1));
    assert_eq!(check(flags::FIRST, &[3, 0, 0, 0, 2, 0, 0, 0, 9, 9]), Err(Discard::Malformed));
    assert_eq!(check(flags::FIRST, &[3, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]), Err(Discard::Malformed));
    assert!(Frames::new(&[], 1).check().is_none());
}

#[test]
fn names_are_what_they_promise() {
    let long = "x".repeat(64);
    for good in ["a", "md.es.trades", "Größe.é", "a-b_c/d:e", &long] {
        let name = TopicName::new(good).unwrap();
        assert_eq!((name.as_str(), name.id()), (good, TopicId::of(good)));
        let mut space = [0; 65];
        name.write(&mut space);
        assert_eq!(split_name(&space[..name.wire_bytes()]), Some((good, &[][..])));
    }
    for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\n", "md.*", "md.>", "a*b", &format!("{long}x")] {
        assert!(TopicName::new(bad).is_err(), "{bad:?}");
    }
    assert_eq!((split_name(&[]), split_name(&[2, b'a']), split_name(&[1, 0xff])), (None, None, None));
}

proptest! {
    #[test]
    fn a_named_message_comes_back_or_is_refused(
        name in ".{0,20}",
        payload in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let good = TopicName::new(&name);
        let body = [&[name.len() as u8], name.as_bytes(), &payload[..]].concat();
        let head = FrameHeader::new(body.len(), TopicId::of(&name), Kind::Data, flags::WHOLE | flags::NAMED);
        let bytes = [head.as_bytes(), &body[..]].concat();
        prop_assert_eq!(Frames::new(&bytes, 1).check().is_some(), good.is_ok());
        if good.is_ok() {
            let head = Frames::new(&bytes, 1).next().unwrap().data().unwrap();
            prop_assert_eq!((head.name, head.payload), (Some(&name[..]), &payload[..]));
        }
    }
}
