//! Watermarks never fall, whatever arrives late, twice or damaged, within one view of one incarnation. A new view
//! or incarnation starts new numbers.

use super::{Verdict, Violation};
use bourdon_protocol::{Flow, Process, Standing};
use bourdon_wire::Rank;

pub(super) const NAME: &str = "watermarks";

/// By process: its incarnation, view and standing, and every watermark it reports, in one fixed order.
#[derive(Debug, Default)]
pub(super) struct Watermarks(Vec<(Vec<u64>, Vec<u64>)>);

fn place(process: &Process) -> [u64; 3] {
    [u64::from(process.incarnation().0), process.view().epoch.0, process.standing() as u64]
}

fn read(process: &Process, into: &mut Vec<u64>) {
    let members = process.config().members;
    into.push(process.delivered_order().0);
    // Another observer that gates lowers the limit.
    let is_gated = process.config().flow == Flow::Gating;
    into.push(process.window().filter(|_| !is_gated).map_or(0, |(_, limit, _)| limit.0));
    for rank in (0..members).map(Rank) {
        // Where it comes late, its deliveries count from the first datagram on.
        let begun = process.standing() == Standing::Member || process.received(rank).0 > 0;
        let delivered = if begun { process.delivered(rank).0 } else { 0 };
        // A process may have delivered the datagram that it is still filling, and may then fill it further: no other
        // has it yet.
        let released = if process.config().rank() == Some(rank) { 0 } else { process.released(rank).0 };
        into.extend([delivered, process.received(rank).0, released]);
        into.extend((0..members).map(|member| process.acknowledged(Rank(member), rank).0));
    }
}

impl Watermarks {
    /// A process is back, and reads its records again.
    pub(super) fn restored(&mut self, process: usize) {
        self.0.get_mut(process).into_iter().for_each(|marks| *marks = Default::default());
    }

    pub(super) fn stepped(&mut self, process: &Process, stepped: usize, processes: usize) -> Verdict {
        self.0.resize(processes, Default::default());
        let (before, after) = &mut self.0[stepped];
        std::mem::swap(before, after);
        after.clear();
        after.extend(place(process));
        let places = after.len();
        read(process, after);
        if before.len() != after.len() || before[..places] != after[..places] {
            return Ok(());
        }
        match before.iter().zip(&*after).position(|(before, now)| now < before) {
            None => Ok(()),
            Some(which) => {
                let (before, now) = (before[which], after[which]);
                let detail = format!("process {stepped}: watermark {} fell from {before} to {now}", which - places);
                Err(Violation::new(NAME, detail))
            }
        }
    }
}
