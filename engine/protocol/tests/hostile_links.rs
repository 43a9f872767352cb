//! A member that sends false messages about locks and leaders makes no other member panic, hang or grow.
//!
//! LinkMessages are taken only in their order, so a random change of bytes seldom gets past the first. Here each link
//! message has the next number, followed by any step, name, rank and number.

use crate::common::net::Net;
use crate::common::{self, Bench, control, data};
use bourdon_protocol::{
    Config, Coordination, Counter, ElectionKind, Leadership, LockNews, MutexKind, Participation, Patience,
};
use bourdon_wire::records::{Link, link_steps as steps};
use bourdon_wire::{ClientId, ClientTag, Epoch, Kind, Sequence, TopicName, flags};
use proptest::prelude::*;
use zerocopy::IntoBytes;

const MS: u64 = 1_000_000;

const KINDS: [fn(&mut Config); 5] = [
    |config| (config.mutex, config.election) = (MutexKind::Replicated, ElectionKind::Bully),
    |config| (config.mutex, config.election) = (MutexKind::Central, ElectionKind::Ring),
    |config| (config.mutex, config.election) = (MutexKind::Lamport, ElectionKind::Bully),
    |config| (config.mutex, config.election) = (MutexKind::RicartAgrawala, ElectionKind::Ring),
    |config| (config.mutex, config.election) = (MutexKind::TokenRing, ElectionKind::Bully),
];

#[derive(Clone, Debug)]
struct Lie {
    from: u16,
    /// How far from the next number.
    turn: u64,
    acknowledged: u64,
    step: u16,
    rank: u16,
    numbers: [u64; 3],
    name: Vec<u8>,
    wait_ns: u64,
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0u64..4,
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 63),
        Just((1 << 63) - 1),
        Just((1 << 47) - 1),
        Just((1 << 41) - 1),
        0u64..1 << 63,
        any::<u64>()
    ]
}

fn lie() -> impl Strategy<Value = Lie> {
    let name = prop_oneof![
        Just(b"\x01a".to_vec()),
        Just(b"\x01b".to_vec()),
        Just(Vec::new()),
        Just(b"\x09short".to_vec()),
        Just(b"\x03a b".to_vec()),
        prop::collection::vec(any::<u8>(), 0..300),
    ];
    let turn = prop_oneof![9 => Just(0u64), 1 => number()];
    let rank = prop_oneof![0u16..4, Just(63), Just(64), Just(u16::MAX)];
    let from = prop_oneof![Just(0u16), Just(2), Just(1), Just(63), Just(u16::MAX)];
    (from, turn, number(), 0u16..24, rank, [number(), number(), number()], name, 0..200_000u64).prop_map(
        |(from, turn, acknowledged, step, rank, numbers, name, wait_ns)| Lie {
            from,
            turn,
            acknowledged,
            step,
            rank,
            numbers,
            name,
            wait_ns,
        },
    )
}

fn message((from, to): (u16, u16), sequence: u64, step: u16, name: &[u8], (rank, numbers): (u16, [u64; 3])) -> Vec<u8> {
    let [number, epoch, other] = numbers.map(Into::into);
    let (sequence, acknowledged) = (sequence.into(), 0.into());
    let record =
        Link { sequence, acknowledged, step: step.into(), rank: rank.into(), to: to.into(), number, epoch, other };
    control(from, Kind::Link, &[record.as_bytes(), name])
}

/// A member of a group of three whose other members have sent one link message each; from now on they send what the
/// test sends.
fn bench(configure: fn(&mut Config), own: usize) -> Bench {
    let mut net = Net::new(3, 0, configure);
    net.run(100 * MS);
    let process = net.processes[own].process.take().unwrap();
    assert_eq!(process.view().epoch, Epoch(1));
    Bench { process, now: net.now }
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn wire(text: &str) -> Vec<u8> {
    let name = name(text);
    let mut bytes = vec![0; name.wire_bytes()];
    name.write(&mut bytes);
    bytes
}

fn keep_time(bench: &mut Bench) {
    let mut timers = 0;
    while bench.process.next_deadline() <= bench.now {
        bench.process.on_timer(bench.now);
        timers += 1;
        assert!(timers < 64, "timers that are due for ever");
    }
    bench.effects();
    while let Some(news) = bench.process.poll_coordination() {
        if let Coordination::Lock(_, LockNews::Granted(token))
        | Coordination::Leader(_, Some(Leadership { token, .. })) = news
        {
            token.as_u128(); // as an application does that guards a resource with it
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn lies_about_locks_and_leaders_cost_nothing(
        (kind, own) in (0usize..5, 0u16..3),
        lies in prop::collection::vec(lie(), 1..80),
    ) {
        let mut bench = bench(KINDS[kind], usize::from(own));
        let mut next = [2u64; 3];
        let mut ids = Vec::new();
        for (round, lie) in lies.into_iter().enumerate() {
            let sequence = next.get(usize::from(lie.from)).copied().unwrap_or(1).wrapping_add(lie.turn);
            let mut bytes = message((lie.from, own), sequence, lie.step, &lie.name, (lie.rank, lie.numbers));
            let at = bytes.len() - lie.name.len() - Link::BYTES + 8;
            bytes = common::altered(&bytes, at, &lie.acknowledged.to_le_bytes());
            bench.take(&bytes);
            if lie.turn == 0 && let Some(next) = next.get_mut(usize::from(lie.from)).filter(|_| lie.from != own) {
                *next += 1;
            }
            match round % 5 {
                0 => ids.extend(bench.process.lock(name("a"), Patience::Forever).ok()),
                1 => drop(bench.process.lock(name("b"), Patience::Try)),
                2 => drop(bench.process.elect(name("a"), Participation::Campaign)),
                3 => _ = ids.pop().map(|id| bench.process.unlock(id)),
                _ => bench.process.resign(name("a")),
            }
            bench.now = bench.now + lie.wait_ns;
            keep_time(&mut bench);
            prop_assert!(bench.process.memory_use().coordination < 2000);
        }
    }

    /// Messages with the group's own topic that are no commands, and commands with any numbers.
    #[test]
    fn garbage_in_the_groups_own_messages_is_passed_over(bodies in prop::collection::vec(command(), 1..40)) {
        let mut bench = bench(KINDS[0], 1);
        let id = bench.process.lock(name("a"), Patience::Forever).unwrap();
        for (at, body) in bodies.into_iter().enumerate() {
            let tag = ClientTag::new(ClientId::GROUP, Sequence(0));
            let body = [tag.as_bytes(), &body].concat();
            let at = at as u64;
            bench.take(&data(0, at, at, at, &[(flags::WHOLE | flags::CLIENT, body)]));
            bench.now = bench.now + 100_000;
            keep_time(&mut bench);
        }
        bench.process.unlock(id);
        prop_assert!(bench.process.memory_use().coordination < 200);
    }
}

fn command() -> impl Strategy<Value = Vec<u8>> {
    let any_bytes = prop::collection::vec(any::<u8>(), 0..40);
    let commands = (0u8..4, number(), 0u8..3)
        .prop_map(|(what, id, name)| [&[what][..], &id.to_le_bytes(), &[1, b'a' + name]].concat());
    prop_oneof![1 => any_bytes, 3 => commands]
}

/// A member that never acknowledges and requests ever new names.
#[test]
fn issue_a_flood_of_names_grew_what_the_others_keep() {
    for (kind, configure) in KINDS.into_iter().enumerate() {
        for (own, from) in [(0, 2), (1, 0)] {
            for step in [steps::HOLDS, steps::REQUEST, steps::WANT, steps::TOKEN, steps::STANDS, steps::ELECTION] {
                let mut bench = bench(configure, own);
                let _ = bench.process.elect(name("mine"), Participation::Campaign);
                for sequence in 2..60_000u64 {
                    bench.take(&message(
                        (from, own as u16),
                        sequence,
                        step,
                        &wire(&format!("n{sequence}")),
                        (from, [1, 1, 2]),
                    ));
                }
                bench.effects();
                let held = bench.process.memory_use().coordination;
                assert!(held < 50_000, "kind {kind}, step {step}: {held}");
            }
        }
    }
}

/// A candidate with the rank of no member came back to no member, and went round for ever; announced, it was noted for
/// each rank.
#[test]
fn issue_a_rank_that_no_member_has_goes_round_a_ring_for_ever() {
    for step in [steps::ELECTION, steps::COORDINATOR] {
        let mut bench = bench(KINDS[1], 1);
        bench.take(&message((0, 1), 2, step, &wire("a"), (9, [1, 1, 0])));
        keep_time(&mut bench);
        assert_eq!(bench.process.link_messages_sent(step), 0, "step {step}");
    }
}

/// Each pair has its own numbering: a link message recorded on its way to another member was taken for the next of its
/// sender here.
#[test]
fn issue_a_link_message_for_another_member_was_taken() {
    let mut bench = bench(KINDS[2], 1);
    let held = bench.process.memory_use().coordination;
    bench.take(&message((0, 2), 2, steps::REQUEST, &wire("a"), (0, [1, 0, 0])));
    let counters = bench.process.counters();
    assert_eq!((bench.process.memory_use().coordination, counters.get(Counter::DiscardedImplausible)), (held, 1));
    bench.take(&message((0, 1), 2, steps::REQUEST, &wire("a"), (0, [1, 0, 0])));
    assert!(bench.process.memory_use().coordination > held);
}

/// A token has a place of 48 bits for its number in a single number. A member announced a leadership or a time beyond
/// that, and the application that took the token as a single number panicked.
#[test]
fn issue_a_forged_number_made_a_token_without_a_single_number() {
    for numbers in [[1 << 50, 1, 0], [1 << 47, 1, 0], [1, 1 << 33, 0]] {
        let mut bench = bench(KINDS[0], 1);
        let _ = bench.process.elect(name("a"), Participation::Watch);
        bench.take(&message((0, 1), 2, steps::LEADS, &wire("a"), (0, numbers)));
        assert_eq!(bench.process.poll_coordination(), None, "{numbers:?}");
    }
    let mut bench = bench(KINDS[2], 1);
    bench.take(&message((0, 1), 2, steps::REQUEST, &wire("b"), (0, [1 << 50, 0, 0])));
    let _ = bench.process.lock(name("a"), Patience::Forever);
    for from in [0, 2] {
        let sequence = if from == 0 { 3 } else { 2 };
        bench.take(&message((from, 1), sequence, steps::REPLY, &wire("a"), (from, [1 << 40, 0, 0])));
    }
    let Some(Coordination::Lock(_, LockNews::Granted(token))) = bench.process.poll_coordination() else {
        panic!("all others replied later");
    };
    assert!(token.as_u128() > 0, "{token:?}");
}
