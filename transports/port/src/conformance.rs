//! One suite for every port.
//!
//! The engine relies on what [`Port`] promises, on any transport. Tests written per transport drift apart and leave
//! each with its own gaps, so the promises are checked here, once, by functions generic over the port; a transport
//! lists them all as its own tests with [`conformance_tests!`](crate::conformance_tests), which takes no choice of
//! checks: a port passes all of them or is none.
//!
//! A check opens its ports through a closure that maps a [`Role`] to a port. Ports with equal [`Role::group`] from one
//! closure share a group; the two groups of one closure differ in address and share the port number where there is
//! one. Tests of one program run at the same time, so every closure must have groups of its own.
//!
//! No check sleeps to let things happen. What should come is waited for up to [`PATIENCE`]; that nothing came is proved
//! by a later datagram from the same source, because a port keeps the order of each source.

use std::time::{Duration, Instant};

use crate::{Arrival, Echo, HostChange, Idle, Port, To};

pub mod addressing;
pub mod delivery;
pub mod sleeping;
pub mod waiting;

/// How long a check waits for what must happen before it fails. Long, because a loaded host may pause a test for
/// seconds, and free, because a passing check never waits it out.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a check wants a port for.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// Which of the closure's two groups: 0 or 1.
    pub group: u8,
    /// How the port's thread idles.
    pub idle: Idle,
    /// How the port knows its own datagrams.
    pub echo: Option<Echo>,
}

impl Role {
    /// A port into the first group without an echo filter.
    pub fn new(idle: Idle) -> Self {
        Self { group: 0, idle, echo: None }
    }
}

/// Lists the whole suite as tests in a module.
///
/// `conformance_tests!(name, world)`: `world` is an expression that makes `Option<impl Fn(Role) -> impl Port>`,
/// evaluated once per test; `None` skips the test, and the code that made it has reported why.
#[macro_export]
macro_rules! conformance_tests {
    ($name:ident, $world:expr) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::Idle;
            use $crate::conformance::{addressing, delivery, sleeping, waiting};
            $crate::conformance_tests!(@both $world;
                delivery::group_reaches_all_others,
                delivery::runs_are_split_as_sent,
                delivery::every_length_arrives,
                delivery::many_in_order_under_backpressure,
                delivery::overrun_leaves_the_rest_intact,
                delivery::receive_keeps_to_its_limit,
                delivery::no_segments_send_nothing,
                delivery::oversized_segments_are_refused,
                addressing::peer_unicast_reaches_only_the_peer,
                addressing::each_arrival_reports_whether_it_was_sent_to_all,
                addressing::own_echo_is_known_by_place_and_bytes,
                addressing::groups_do_not_cross_talk,
                addressing::a_broadcast_reaches_every_group_on_the_port,
                addressing::a_peer_that_has_gone_harms_no_other,
                addressing::a_dropped_port_frees_its_place,
                addressing::a_host_that_does_not_change_is_followed_without_effect,
                addressing::limits_are_real,
                waiting::empty_receive_returns_nothing,
                waiting::wait_returns_for_what_came_before,
                sleeping::two_ports_hand_out_what_comes,
            );
            $crate::conformance_tests!(@park $world;
                waiting::wait_sleeps_and_times_out,
                waiting::wait_returns_on_arrival_from_another_thread,
                waiting::wait_returns_on_unicast_arrival,
                waiting::wait_returns_for_what_a_limit_left,
                waiting::wake_before_wait_is_not_lost,
                waiting::wake_survives_a_receive,
                waiting::wake_from_another_thread,
                sleeping::a_sleep_with_nothing_to_wake_for_lasts,
                sleeping::either_of_two_ports_ends_a_sleep,
                sleeping::no_sleep_over_what_a_limit_left,
                sleeping::no_wake_is_slept_over,
            );
        }
    };
    (@both $world:expr; $($module:ident :: $check:ident),* $(,)?) => {
        mod spin {
            use super::*;
            $($crate::conformance_tests!(@one $world; $module, $check, Idle::Spin);)*
        }
        mod park {
            use super::*;
            $($crate::conformance_tests!(@one $world; $module, $check, Idle::Park);)*
        }
    };
    (@park $world:expr; $($module:ident :: $check:ident),* $(,)?) => {
        mod parked {
            use super::*;
            $($crate::conformance_tests!(@one $world; $module, $check, Idle::Park);)*
        }
    };
    (@one $world:expr; $module:ident, $check:ident, $idle:expr) => {
        #[test]
        fn $check() {
            if let Some(world) = $world {
                $module::$check($idle, world);
            }
        }
    };
}

/// Bytes that differ in every place and for every `seed`, so that a shifted, cut or mixed-up datagram is noticed.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len + 8);
    let mut word = seed;
    while bytes.len() < len {
        // SplitMix64: https://prng.di.unimi.it/splitmix64.c
        word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = word;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Sends all of `bytes`, however often the port takes less.
pub fn send_all<P: Port>(port: &mut P, to: To, bytes: &[u8], segment_bytes: usize) {
    let started = Instant::now();
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = port.send(to, rest, segment_bytes).expect("a send that works");
        let segments = rest.len().div_ceil(segment_bytes);
        assert!(taken <= segments, "took {taken} of {segments} segments");
        rest = &rest[(taken * segment_bytes).min(rest.len())..];
        port.flush().expect("a flush that works");
        assert!(started.elapsed() < PATIENCE, "{} bytes were never taken", rest.len());
    }
}

/// Receives once, checks that the count is the number of calls, and adds what came to `got`.
pub fn receive_into<P: Port>(port: &mut P, limit: usize, got: &mut Vec<Vec<u8>>) -> usize {
    let before = got.len();
    let count =
        port.receive(limit, |arrival: Arrival<'_>| got.push(arrival.bytes.to_vec())).expect("a receive that works");
    assert_eq!(count, got.len() - before, "the count is the number of datagrams handed out");
    count
}

/// Receives until `count` datagrams have come; fails when they don't.
pub fn receive_count<P: Port>(port: &mut P, count: usize) -> Vec<Vec<u8>> {
    let mut got = Vec::new();
    poll_until(port, |port| {
        receive_into(port, usize::MAX, &mut got);
        got.len() >= count
    });
    assert_eq!(got.len(), count, "more came than was sent");
    got
}

/// Receives until `last` has come and returns all that came before it.
pub fn receive_up_to<P: Port>(port: &mut P, last: &[u8]) -> Vec<Vec<u8>> {
    let mut got: Vec<Vec<u8>> = Vec::new();
    poll_until(port, |port| {
        receive_into(port, usize::MAX, &mut got);
        got.iter().any(|datagram| datagram == last)
    });
    let place = got.iter().position(|datagram| datagram == last).expect("it was there");
    got.truncate(place);
    got
}

/// Follows the host until it has changed.
pub fn change_of<P: Port>(port: &mut P) -> HostChange {
    let started = Instant::now();
    loop {
        if let Some(change) = port.follow_host().expect("a host that is followed") {
            return change;
        }
        assert!(started.elapsed() < PATIENCE, "the change is not noticed");
        std::thread::yield_now();
    }
}

/// Calls `step`, waiting between calls as the engine would, until it returns that all is done.
pub fn poll_until<P: Port>(port: &mut P, mut step: impl FnMut(&mut P) -> bool) {
    let started = Instant::now();
    while !step(port) {
        assert!(started.elapsed() < PATIENCE, "what was sent never came");
        port.wait(Duration::from_millis(10)).expect("a wait that works");
    }
}
