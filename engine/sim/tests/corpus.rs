//! The inputs that fuzzing found worth keeping, replayed on every build, and scripts at random.

use crate::replay::replay;
use bourdon_sim::hostile;

#[test]
fn datagram() {
    replay("datagram", hostile::datagram);
}

#[test]
fn process() {
    replay("process", hostile::process);
}

#[test]
fn client() {
    replay("client", hostile::client);
}

#[test]
fn scripts_at_random() {
    let mut state = 1u64;
    for _ in 0..3000 {
        let script: Vec<u8> = (0..600)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        hostile::process(&script);
        hostile::client(&script);
        hostile::datagram(&script);
    }
}
