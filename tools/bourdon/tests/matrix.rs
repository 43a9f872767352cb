//! Demos of several orders and levels, before a judge that shares no code with them.

use bourdon_lab::judge::{Order, Reliability};
use bourdon_lab::matrix;

/// A few cells: `bourdon-lab matrix` has them all. Needs no root.
#[test]
fn cells_of_the_matrix_keep_their_promise_on_sockets() {
    let folder = tempfile::tempdir().expect("a folder");
    let plan = matrix::Plan {
        bourdon: env!("CARGO_BIN_EXE_bourdon").into(),
        transports: vec!["udp".into(), "tcp".into()],
        messages: 400,
        orders: vec![Order::Causal, Order::Total],
        levels: vec![Reliability::Unreliable, Reliability::Uniform],
        folder: folder.path().to_owned(),
    };
    let cells = matrix::run(&plan, &mut |_| {}).expect("it can be run");
    let failures: Vec<_> = cells.iter().filter(|cell| !cell.failures.is_empty()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(cells.len() == 16 && cells.iter().all(|cell| cell.deliveries > 0), "{cells:#?}");
}
