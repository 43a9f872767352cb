//! Watermarks never fall, whatever arrives late, twice or damaged.
//!
//! DESIGN §7: 14.

use super::{Verdict, Violation};
use bourdon_protocol::Process;
use bourdon_wire::Rank;

pub(super) const NAME: &str = "watermarks";

/// By process: every watermark it shows, in one fixed order.
#[derive(Debug, Default)]
pub(super) struct Watermarks(Vec<Vec<u64>>);

fn read(process: &Process, into: &mut Vec<u64>) {
    let members = process.config().members;
    into.push(process.delivered_order().0);
    into.push(process.window().map_or(0, |(_, limit, _)| limit.0));
    for rank in (0..members).map(Rank) {
        into.extend([process.delivered(rank).0, process.received(rank).0, process.released(rank).0]);
        into.extend((0..members).map(|member| process.acknowledged(Rank(member), rank).0));
    }
}

impl Watermarks {
    pub(super) fn stepped(&mut self, processes: &[&Process], stepped: usize) -> Verdict {
        if self.0.len() < processes.len() {
            self.0.resize(processes.len(), Vec::new());
        }
        let mut now = Vec::with_capacity(self.0[stepped].len());
        read(processes[stepped], &mut now);
        let before = std::mem::replace(&mut self.0[stepped], now);
        let fell = before.iter().zip(&self.0[stepped]).position(|(before, now)| now < before);
        match fell {
            None => Ok(()),
            Some(which) => {
                let (before, now) = (before[which], self.0[stepped][which]);
                let detail = format!("process {stepped}: watermark {which} fell from {before} to {now}");
                Err(Violation::new(NAME, detail))
            }
        }
    }
}
