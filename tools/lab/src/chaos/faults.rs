//! Draws the next fault, the process it hits and its duration, from the seed alone.

use super::Plan;
use std::time::Duration;

/// The kinds of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// SIGSTOP for at most half a second.
    Pause,
    /// SIGSTOP for half a second to a second: longer than any detector waits.
    LongPause,
    /// SIGKILL.
    Kill,
    /// SIGKILL of one member while another member is stopped.
    KillDuringPause,
    /// A cable is pulled.
    Cut,
    /// A member receives nothing that one other member sends.
    CutOneWay,
    /// All processes are stopped at once and resumed.
    FreezeAll,
    /// All processes are killed; the group is started again.
    RestartKilled,
    /// All processes are stopped; the group is started again, and the old processes are resumed while it runs.
    RestartFrozen,
    /// SIGSTOP for two to eight seconds, as a host that was suspended.
    Suspend,
    /// A host gets another address over UDP, as with a new lease; over TCP it loses its address for a while.
    Readdress,
    /// A host's interface goes down and up.
    InterfaceDown,
    /// A host's interface is removed and made again.
    InterfaceAgain,
    /// Recorded traffic of the previous generation is sent again.
    Replay,
}

impl Fault {
    /// Every kind and how often it is drawn.
    const WEIGHTS: [(Self, u32); 14] = [
        (Self::Pause, 12),
        (Self::LongPause, 5),
        (Self::Kill, 6),
        (Self::KillDuringPause, 3),
        (Self::Cut, 3),
        (Self::CutOneWay, 3),
        (Self::FreezeAll, 2),
        (Self::RestartKilled, 1),
        (Self::RestartFrozen, 2),
        (Self::Suspend, 2),
        (Self::Readdress, 4),
        (Self::InterfaceDown, 3),
        (Self::InterfaceAgain, 3),
        (Self::Replay, 3),
    ];

    pub(super) fn restarts_all(self) -> bool {
        matches!(self, Self::RestartKilled | Self::RestartFrozen)
    }

    /// Whether it is a fault of the network between hosts, or of a host's interface.
    pub(super) fn needs_network(self) -> bool {
        match self {
            Self::Pause | Self::LongPause | Self::Kill | Self::KillDuringPause | Self::FreezeAll => false,
            Self::RestartKilled | Self::RestartFrozen | Self::Suspend => false,
            Self::Cut | Self::CutOneWay | Self::Replay => true,
            Self::Readdress | Self::InterfaceDown | Self::InterfaceAgain => true,
        }
    }

    /// Its name in the report.
    pub(super) fn name(self) -> String {
        clap::ValueEnum::to_possible_value(&self).map_or_else(String::new, |name| name.get_name().to_owned())
    }
}

/// The source of all randomness.
pub(super) struct Draw {
    rng: fastrand::Rng,
    kinds: Vec<(Fault, u32)>,
    members: usize,
    others: usize,
}

impl Draw {
    pub(super) fn new(plan: &Plan) -> Self {
        let is_wanted = |kind: &Fault| match plan.restarts {
            Some(_) => kind.restarts_all(),
            None => plan.faults.is_empty() || plan.faults.contains(kind),
        };
        let is_wanted = |kind: &Fault| is_wanted(kind) && !(plan.is_on_one_host() && kind.needs_network());
        let kinds = Fault::WEIGHTS.into_iter().filter(|(kind, _)| is_wanted(kind)).collect();
        let rng = fastrand::Rng::with_seed(plan.seed);
        Self { rng, kinds, members: plan.members, others: plan.observers + plan.clients }
    }

    pub(super) fn fault(&mut self) -> Fault {
        let total: u32 = self.kinds.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.u32(0..total.max(1));
        for (kind, weight) in &self.kinds {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *kind,
            }
        }
        Fault::Pause
    }

    /// The time until the next fault.
    pub(super) fn gap(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(20..400))
    }

    pub(super) fn time(&mut self, ms: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(ms))
    }

    pub(super) fn member(&mut self) -> usize {
        self.rng.usize(0..self.members)
    }

    /// A member most often; otherwise an observer or client, by its index after the members.
    pub(super) fn process(&mut self) -> usize {
        if self.others > 0 && self.rng.u8(0..4) == 0 {
            self.members + self.rng.usize(0..self.others)
        } else {
            self.member()
        }
    }

    /// Whether a process is frozen, not killed, when the whole group is restarted: three of four are, so that often a
    /// whole majority is.
    pub(super) fn freezes(&mut self) -> bool {
        self.rng.u8(0..4) > 0
    }

    /// Two different members.
    pub(super) fn pair(&mut self) -> (usize, usize) {
        let first = self.member();
        (first, (first + self.rng.usize(1..self.members)) % self.members)
    }
}
