//! Path: a process that receives short datagrams only is found, named and gone on without.
//!
//! Heartbeats are short. Where a path carries only short datagrams, they pass and data does not: a group that judges
//! its members by heartbeats alone waits for such a member for ever, and sends it the same repairs again and again.

use super::{Verdict, Violation};

pub(super) const NAME: &str = "path";

/// A process that lacks long datagrams for so long is named.
const NAMED_WITHIN_NS: u64 = 2_500_000_000;
/// A member that the others have gone on without for so long has heard of it: short datagrams are enough for that.
const LEARNT_WITHIN_NS: u64 = 3_000_000_000;
/// Repairs a second of all processes together while paths carry no long datagrams.
const REPAIRS_PER_S: u64 = 100;

/// What was seen of a group while some of its paths carried no long datagrams.
#[derive(Debug)]
pub(crate) struct Narrow {
    /// For how long.
    pub(crate) lasted_ns: u64,
    /// By receiver on such a path: for how long datagrams were too long for it, and whether it was named.
    pub(crate) receivers: Vec<(usize, u64, bool)>,
    /// Members that the others have gone on without and that have not heard of it: since how long.
    pub(crate) unaware: Vec<(usize, u64)>,
    /// Repairs sent by all.
    pub(crate) repairs: u64,
    /// Whether the others have something to deliver and, as a majority reaches each other, must go on.
    pub(crate) goes_on: bool,
    /// Messages delivered in the last part of the time.
    pub(crate) delivered: u64,
}

pub(super) fn narrowed(narrow: &Narrow) -> Verdict {
    let unnamed = |(_, lacks_ns, is_named): &&(usize, u64, bool)| *lacks_ns >= NAMED_WITHIN_NS && !is_named;
    if let Some((process, lacks_ns, _)) = narrow.receivers.iter().find(unnamed) {
        let text = format!("process {process} has received no long datagram for {lacks_ns} ns, and was not named");
        return Err(Violation::new(NAME, format!("{text}: {narrow:?}")));
    }
    if let Some((process, ns)) = narrow.unaware.iter().find(|(_, ns)| *ns >= LEARNT_WITHIN_NS) {
        let text = format!("the others went on without process {process} {ns} ns ago, and it does not know");
        return Err(Violation::new(NAME, format!("{text}: {narrow:?}")));
    }
    let most = REPAIRS_PER_S * narrow.lasted_ns / 1_000_000_000;
    if narrow.repairs > most {
        return Err(Violation::new(NAME, format!("more than {most} repairs: {narrow:?}")));
    }
    if narrow.goes_on && narrow.delivered == 0 {
        return Err(Violation::new(NAME, format!("the group stands still: {narrow:?}")));
    }
    Ok(())
}
