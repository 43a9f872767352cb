//! Strangers: valid datagrams, changed and sealed again, make no process panic, hang or grow.

mod common;

use bourdon_protocol::{Order, Role, Start};
use bourdon_wire::{Rank, checksum};
use common::{Bench, MTU, after, data, message, nak, piece, row, run, unavailable};
use proptest::prelude::*;

/// One of everything that a member may hear.
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
    ]
}

fn bench(kind: u8) -> Bench {
    let role = if kind & 1 == 0 { Role::Member(Rank(1)) } else { Role::Observer };
    let order = [Order::Unordered, Order::Fifo, Order::Causal, Order::Total][usize::from(kind >> 1 & 3)];
    let mut config = Bench::config(order, 3, role);
    config.start = if kind & 8 == 0 { Start::Live } else { Start::Oldest };
    config.limits.receivers = if kind & 16 == 0 { 3 } else { 30 };
    config.limits.receive_log_bytes = 16 * MTU;
    Bench::with(config)
}

#[derive(Clone, Debug)]
struct Lie {
    which: usize,
    /// Where, and what: bytes behind the flags.
    changes: Vec<(usize, u8)>,
    wait_ns: u64,
    publish: bool,
}

fn lie() -> impl Strategy<Value = Lie> {
    let byte = prop_oneof![Just(0u8), Just(1), Just(0x7F), Just(0xFF), any::<u8>()];
    let changes = prop::collection::vec((8usize..160, byte), 0..5);
    (0usize..12, changes, 0u64..2_000_000, any::<bool>()).prop_map(|(which, changes, wait_ns, publish)| Lie {
        which,
        changes,
        wait_ns,
        publish,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

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
            let held = bench.process.held();
            prop_assert!(held.outbox_bytes == 0 && held.events == 0 && held.early_datagrams <= 48, "{:?}", held);
            prop_assert!(held.assembly_bytes <= 3 * 8 * MTU && held.clients <= 60, "{:?}", held);
        }
    }
}

/// A stranger that knows everything about a stream but its future: the largest numbers there are.
#[test]
fn the_largest_numbers_there_are() {
    for kind in 0..32 {
        let mut bench = bench(kind);
        let most = (1 << 63) - 1;
        bench.take(&bench.heartbeat(0, |heartbeat| {
            heartbeat.next_number = most.into();
            heartbeat.next_sequence = most.into();
            heartbeat.next_order = u64::MAX.into();
            heartbeat.oldest_number = u64::MAX.into();
            heartbeat.window_bytes = u32::MAX.into();
        }));
        bench.take(&data(0, most, most, most, &[message(b"x"), run(2, u64::MAX, u32::MAX), message(b"y")]));
        bench.take(&data(2, 0, most, most, &[after(&[(0, u64::MAX)], b"x"), message(b"y")]));
        bench.take(&data(2, most - 1, most, 0, &[message(b"x")]));
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
