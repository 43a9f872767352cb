//! Fragments, case by case.

use crate::common::{Bench, Effect, MTU, data, deliver, message, piece, sends};
use bourdon_protocol::{Order, Refusal, Role, Start};

/// The most one frame holds: the datagram less its header and the frame's.
const FRAME: usize = MTU - 64 - 8;

#[test]
fn a_message_that_just_fits_is_whole_and_one_byte_more_is_cut() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.publish(&[1; FRAME]);
    assert_eq!(bench.news()[0], sends(0, &["1208 bytes"]));
    bench.publish(&[2; FRAME + 1]);
    let effects = bench.news();
    assert_eq!(effects[..2], [sends(1, &["0+1200 of 1209"]), sends(2, &["1200+9 of 1209"])]);
    assert_eq!(effects[2], deliver("0:1"));
}

#[test]
fn small_messages_share_the_last_piece_s_datagram() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    bench.publish(b"before");
    bench.publish(&[2; FRAME + 1]);
    bench.publish(b"behind");
    let effects = bench.news();
    assert_eq!(
        effects[..3],
        [sends(0, &["6 bytes"]), sends(1, &["0+1200 of 1209"]), sends(2, &["1200+9 of 1209", "6 bytes"])]
    );
    assert_eq!(effects[3..], [deliver("0:0"), deliver("0:1"), deliver("0:2")]);
}

#[test]
fn pieces_become_one_message_in_any_order_of_arrival() {
    for order in [Order::Fifo, Order::Unordered, Order::Causal] {
        let mut bench = Bench::member(order, 2, 1).formed();
        bench.take(&data(0, 2, 0, 0, &[piece(9, 6, b"ghi")]));
        bench.take(&data(0, 0, 0, 0, &[piece(9, 0, b"abc")]));
        assert_eq!(bench.delivered(), [""; 0]);
        bench.take(&data(0, 1, 0, 0, &[piece(9, 3, b"def")]));
        let mut shown = Vec::new();
        bench.process.deliver(bench.now, usize::MAX, |delivery| shown.push(delivery.payload.to_vec()));
        assert_eq!(shown, [b"abcdefghi"], "{order:?}");
    }
}

#[test]
fn an_empty_message_is_a_message() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    assert_eq!(bench.publish(b""), 0);
    assert_eq!(bench.news()[..2], [sends(0, &["0 bytes"]), deliver("0:0")]);
}

#[test]
fn a_receiver_that_joins_inside_a_message_skips_the_rest() {
    let mut bench = Bench::new(Order::Fifo, 1, Role::Observer);
    bench.take(&data(0, 7, 4, 0, &[piece(9, 6, b"ghi"), message(b"next")]));
    assert_eq!(bench.delivered(), ["0:5"]);
}

#[test]
fn an_old_message_longer_than_allowed_is_not_collected() {
    let mut bench = Bench::member(Order::Fifo, 2, 1).formed();
    let limit = 8 * MTU as u32;
    bench.take(&data(0, 0, 0, 0, &[piece(u32::MAX, 0, &[0; 1000])]));
    for number in 1..40 {
        bench.take(&data(0, number, 0, 0, &[piece(u32::MAX, number as u32 * 1000, &[0; 1000])]));
        bench.process.deliver(bench.now, usize::MAX, |_| {});
        assert!(bench.process.memory_use().assembly_bytes <= limit as usize);
    }
    bench.take(&data(0, 40, 0, 0, &[piece(u32::MAX, 40_000, &[0; 1000]), message(b"next")]));
    assert_eq!(bench.delivered(), ["0:0"], "a message without an end is not delivered");
}

#[test]
fn too_large_is_returned_before_anything_is_sent() {
    let mut bench = Bench::member(Order::Fifo, 2, 0).formed();
    let outgoing = bourdon_protocol::Outgoing::default();
    let refusal = bench.process.try_publish(bench.now, &outgoing, &vec![0; 8 * MTU + 1]);
    assert_eq!(refusal, Err(Refusal::TooLarge { limit_bytes: 8 * MTU }));
    let refusal = bench.process.try_claim(bench.now, &outgoing, FRAME + 1).map(drop);
    assert_eq!(refusal, Err(Refusal::TooLarge { limit_bytes: FRAME }));
    assert!(!bench.news().iter().any(|effect| matches!(effect, Effect::Data(..))));
}

#[test]
fn an_observer_may_collect_more_than_its_log_holds() {
    let mut config = Bench::config(Order::Total, 1, Role::Observer);
    config.limits.receive_log_bytes = 16 * MTU;
    config.limits.max_message_bytes = 1 << 20;
    config.start = Start::Live;
    let mut bench = Bench::with(config);
    for number in 0..40 {
        bench.take(&data(0, number, 0, 0, &[piece(40_000, number as u32 * 1000, &[0; 1000])]));
        let shown = bench.delivered();
        assert_eq!(shown.len(), usize::from(number == 39));
    }
}
