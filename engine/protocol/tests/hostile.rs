//! Strangers: valid datagrams, changed and sealed again, make no process panic, hang or grow.

use crate::common::{
    Bench, MTU, Step, Value, address, after, control, data, in_epoch, marker, message, nak, piece, row, run,
    unavailable,
};
use bourdon_protocol::{Order, Role, Start};
use bourdon_wire::records::ballot_steps::{ACCEPT, DECIDE, PREPARE, PROPOSE, REFUSE};
use bourdon_wire::records::{
    ClientRequest, Direct, Ping, Transfer, ViewAsk, ViewEntry, ViewInfo, direct_steps, request_flags, transfer_steps,
};
use bourdon_wire::{Fragment, Kind, Rank, checksum};
use proptest::prelude::*;
use zerocopy::IntoBytes;

/// One datagram of every kind that a member may receive.
fn valid(bench: &Bench) -> Vec<Vec<u8>> {
    vec![
        bench.heartbeat(0, |_| {}),
        bench.heartbeat(2, |heartbeat| heartbeat.next_number = 9.into()),
        data(0, 0, 0, 0, &[message(b"abc"), run(2, 0, 1), message(b"")]),
        data(0, 1, 2, 3, &[piece(9, 0, b"abcdef")]),
        data(0, 2, 2, 3, &[piece(9, 6, b"ghi"), message(b"x")]),
        data(2, 0, 0, 0, &[after(&[(0, 1), (1, 0)], b"answer")]),
        data(2, 3, 1, 0, &[message(&[5; 900])]),
        row(0, &[(1, 1), (1, 0), (2, 2)]),
        row(2, &[(1, 1), (0, 0), (2, 2)]),
        nak(0, 100, 1, &[(0, 3), (7, 100)]),
        nak(2, 102, 0, &[(0, 3)]),
        unavailable(0, 0, 2),
        Step::of(PREPARE, (1, 0)).from(0),
        Step::state((1, 1), &[1, 1, 1]).from(2),
        Step::with(PROPOSE, (1, 2), Value(&[1, 2], 1, &[1, 0, 1])).from(2),
        Step::of(ACCEPT, (1, 1)).from(0),
        Step::of(REFUSE, (9, 2)).from(0),
        Step::with(DECIDE, (1, 0), Value(&[0, 2], 0, &[1, 0, 1])).from(0),
        data(0, 4, 4, 3, &[marker(0, 4, Some(b"between"))]),
        in_epoch(&view(), 2),
        in_epoch(&bench.heartbeat(0, |heartbeat| heartbeat.flags = 2.into()), 2),
        control(0, Kind::Ping, &[Ping { nonce: 1.into(), reply_to: address(100), answer: 0.into() }.as_bytes()]),
        control(0, Kind::ViewAsk, &[ViewAsk { reply_to: address(100), nonce: 1.into(), cookie: 0.into() }.as_bytes()]),
        transfer(transfer_steps::REQUEST_SNAPSHOT),
        transfer(transfer_steps::PART),
        direct(direct_steps::SEND),
        direct(direct_steps::TAKEN),
        direct(direct_steps::BROADCAST),
        client_fragment(0),
        client_fragment(2),
    ]
}

/// Two bytes of a client's message of six.
fn client_fragment(offset: usize) -> Vec<u8> {
    let record = ClientRequest {
        client: 5.into(),
        sequence: 0.into(),
        reply_to: address(102),
        flags: request_flags::FRAGMENT.into(),
        under_way: 0.into(),
        since_taken: 0.into(),
    };
    let fragment = Fragment::new(6, offset);
    control(Rank::CLIENT.0, Kind::ClientRequest, &[record.as_bytes(), &[fragment.as_bytes(), &b"ab"[..]].concat()])
}

fn view() -> Vec<u8> {
    let entry = |rank: u16| ViewEntry { rank: rank.into(), incarnation: 1.into(), first_sequence: 1.into() };
    let info = ViewInfo {
        entries: 3.into(),
        members: 2.into(),
        sequencer: 0.into(),
        barriers: 0.into(),
        first_order: 3.into(),
        phase: 0.into(),
        configuration: bench(0).process.config().fingerprint().into(),
        birth: 1.into(),
        nonce: 0.into(),
    };
    control(0, Kind::View, &[info.as_bytes(), [entry(0), entry(2), entry(1)].as_bytes()])
}

fn direct(step: u16) -> Vec<u8> {
    let (sender_id, sequence, oldest, sent_ns) = (7.into(), 1.into(), 1.into(), 5.into());
    let record = Direct { step: step.into(), sender_id, sequence, oldest, sent_ns, reply_to: address(102) };
    control(2, Kind::Direct, &[record.as_bytes(), b"hello"])
}

fn transfer(step: u16) -> Vec<u8> {
    let record = Transfer {
        step: step.into(),
        donor: 1.into(),
        ticket: 1.into(),
        reply_to: address(102),
        part: 0.into(),
        count: 1.into(),
        total_bytes: 40.into(),
        part_bytes: 1144.into(),
        checksum: 0.into(),
        cookie: 0.into(),
    };
    control(2, Kind::Transfer, &[record.as_bytes(), &[0; 40]])
}

fn bench(kind: u8) -> Bench {
    let role = if kind & 1 == 0 { Role::Member(Rank(1)) } else { Role::Observer };
    let order = [Order::Unordered, Order::Fifo, Order::Causal, Order::Total][usize::from(kind >> 1 & 3)];
    let mut config = Bench::config(order, 3, role);
    config.start = if kind & 8 == 0 { Start::Live } else { Start::Oldest };
    if kind & 32 != 0 {
        config.view = None;
    }
    config.snapshots = kind & 64 != 0;
    config.limits.receivers = if kind & 16 == 0 { 3 } else { 30 };
    config.limits.receive_log_bytes = 16 * MTU;
    Bench::with(config)
}

#[derive(Clone, Debug)]
struct Lie {
    which: usize,
    /// Where, and what: bytes after the flags.
    changes: Vec<(usize, u8)>,
    wait_ns: u64,
    publish: bool,
}

fn lie() -> impl Strategy<Value = Lie> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7F), Just(0xFF), any::<u8>()];
    let changes = prop::collection::vec((8usize..160, byte), 0..5);
    (0usize..30, changes, 0u64..2_000_000, any::<bool>()).prop_map(|(which, changes, wait_ns, publish)| Lie {
        which,
        changes,
        wait_ns,
        publish,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lies_cost_nothing_but_their_bytes(kind in any::<u8>(), lies in prop::collection::vec(lie(), 1..60)) {
        let mut bench = bench(kind);
        let truths = valid(&bench);
        for lie in lies {
            let mut bytes = truths[lie.which].clone();
            for (at, byte) in lie.changes {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let sum = checksum(&bytes);
            bytes[4..8].copy_from_slice(&sum.to_le_bytes());
            bench.take(&bytes);
            if lie.publish {
                let _ = bench.process.try_publish(bench.now, &Default::default(), b"honest");
            }
            bench.now = bench.now + lie.wait_ns;
            let mut timers = 0;
            while bench.process.next_deadline() <= bench.now {
                bench.process.on_timer(bench.now);
                timers += 1;
                prop_assert!(timers < 64, "timers that are due for ever");
            }
            bench.effects();
            bench.effects(); // an epoch that has just ended leaves datagrams to send
            let held = bench.process.memory_use();
            prop_assert!(held.outbox_bytes == 0 && held.events == 0 && held.early_datagrams <= 48, "{:?}", held);
            prop_assert!(held.assembly_bytes <= 3 * 8 * MTU && held.clients <= 60, "{:?}", held);
            prop_assert!(held.client_bytes <= 16 * 8 * MTU, "{:?}", held);
            prop_assert!(held.unsettled <= 60 && held.snapshot_bytes <= 4096, "{:?}", held);
        }
    }
}

/// A ballot that had to send to a process of unknown address kept a timer due for ever; so did a ballot that was taken
/// over.
#[test]
fn issue_a_ballot_of_anothers_keeps_a_timer_due() {
    for formed in [false, true] {
        let mut bench = Bench::member(Order::Fifo, 3, 1);
        if formed {
            bench = bench.formed();
        }
        bench.take(&Step::of(PREPARE, (1, 0)).from(0));
        for _ in 0..200 {
            bench.now = bench.now + 1_000_000;
            let mut timers = 0;
            while bench.process.next_deadline() <= bench.now {
                bench.process.on_timer(bench.now);
                timers += 1;
                assert!(timers < 64, "due for ever");
            }
            bench.effects();
        }
    }
}

/// A stranger that knows everything about a stream except its future: the largest possible numbers.
#[test]
fn the_largest_numbers_there_are() {
    for kind in 0..=255 {
        let mut bench = bench(kind);
        let (most, last) = ((1 << 63) - 1, (1 << 48) - 1);
        bench.take(&bench.heartbeat(0, |heartbeat| {
            heartbeat.next_number = last.into();
            heartbeat.next_sequence = most.into();
            heartbeat.next_order = u64::MAX.into();
            heartbeat.oldest_number = u64::MAX.into();
            heartbeat.window_bytes = u32::MAX.into();
        }));
        bench.take(&data(0, last, most, most, &[message(b"x"), run(2, u64::MAX, u32::MAX), message(b"y")]));
        bench.take(&data(2, 0, most, most, &[after(&[(0, u64::MAX)], b"x"), message(b"y")]));
        bench.take(&data(2, last - 1, most, 0, &[message(b"x")]));
        bench.take(&nak(0, 100, 1, &[(u64::MAX, u32::MAX); 64]));
        bench.take(&nak(0, 100, 0, &[(most, u32::MAX); 64]));
        bench.take(&unavailable(0, 0, u64::MAX));
        bench.take(&row(0, &[(u64::MAX, u64::MAX); 3]));
        bench.timers();
        bench.effects();
        bench.wait(100_000_000);
        bench.effects();
    }
}
