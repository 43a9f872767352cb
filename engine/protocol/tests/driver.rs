//! The driver of a view change whose data plane reports late, as from another thread.
//!
//! In a process reports are immediate, so that only here one comes after a later step.

use bourdon_protocol::control::view_change::driver::{Command, Commands, DetectorReport, Driver, Timer, To};
use bourdon_protocol::control::view_change::{Ballot, Step, Value};
use bourdon_protocol::values::cut::Cut;
use bourdon_protocol::view::{Member, View};
use bourdon_wire::{DatagramNumber, Epoch, Incarnation, InstanceId, Rank};

const NO_SUSPICION: DetectorReport = DetectorReport { suspects: 0, evidence: 0, narrow: 0 };
const FIRST: Ballot = Ballot(1 << 16);
const SECOND: Ballot = Ballot(2 << 16 | 1);

fn member(rank: u16) -> Member {
    Member { rank: Rank(rank), incarnation: Incarnation(1) }
}

/// All streams up to `end`.
fn cut(end: u64) -> Cut {
    Cut { ends: vec![DatagramNumber(end); 3], ..Cut::default() }
}

/// All members go on, after the streams' datagrams below `end`.
fn value(end: u64) -> Value {
    let members = (0..3).map(member).collect();
    Value { members, sequencer: Rank(0), leavers: 0, cut: cut(end), instance: InstanceId(1), birth: 1 }
}

/// Rank 2 of three members, and what its driver commands.
struct Bench {
    driver: Driver,
    commands: Commands,
}

impl Bench {
    fn new() -> Self {
        let view = View::of_all(Epoch(1), 3, Incarnation(1), Rank(0));
        Self { driver: Driver::new(member(2), view, 2, None), commands: Commands::new() }
    }

    /// A step from the proposer of its ballot; returns the commands.
    fn step(&mut self, ballot: Ballot, step: Step) -> Vec<Command> {
        let from = member(ballot.proposer().0);
        self.driver.on_step(from, ballot, step, &NO_SUSPICION, &mut self.commands).expect("a plausible step");
        self.commands.drain(..).collect()
    }

    fn wedged(&mut self, ballot: Ballot) -> Vec<Command> {
        self.driver.on_wedged(ballot, cut(0), &NO_SUSPICION, &mut self.commands);
        self.commands.drain(..).collect()
    }

    fn cut_held(&mut self, ballot: Ballot) -> Vec<Command> {
        self.driver.on_cut_held(ballot, &NO_SUSPICION, &mut self.commands);
        self.commands.drain(..).collect()
    }

    fn timer(&mut self, timer: Timer) -> Vec<Command> {
        self.driver.on_timer(timer, &NO_SUSPICION, &mut self.commands);
        self.commands.drain(..).collect()
    }
}

fn fetch(ballot: Ballot, end: u64) -> Command {
    Command::Fetch { ballot, cut: cut(end), stay: 0b111 }
}

fn is_state(command: &Command, of: Ballot) -> bool {
    matches!(command, Command::Send { ballot, step: Step::State { .. }, .. } if *ballot == of)
}

#[test]
fn a_cut_held_for_an_earlier_ballot_accepts_nothing() {
    let mut bench = Bench::new();
    for (ballot, end) in [(FIRST, 1), (SECOND, 2)] {
        assert_eq!(bench.step(ballot, Step::Prepare)[0], Command::Wedge(ballot));
        assert!(is_state(&bench.wedged(ballot)[0], ballot));
        let commands = bench.step(ballot, Step::Propose(value(end)));
        assert!(commands.contains(&fetch(ballot, end)), "{commands:?}");
    }
    assert_eq!(bench.cut_held(FIRST), []);
    assert_eq!(bench.driver.ballots().accepted(), None);
    let to = To::Member(SECOND.proposer());
    assert_eq!(bench.cut_held(SECOND), [Command::Send { to, ballot: SECOND, step: Step::Accept }]);
}

#[test]
fn a_wedge_for_an_earlier_ballot_promises_nothing() {
    let mut bench = Bench::new();
    bench.step(FIRST, Step::Prepare);
    assert_eq!(bench.step(SECOND, Step::Prepare)[0], Command::Wedge(SECOND));
    assert_eq!(bench.wedged(FIRST), []);
    assert!(is_state(&bench.wedged(SECOND)[0], SECOND));
    assert_eq!(bench.wedged(SECOND), [], "one promise is sent once");
}

#[test]
fn a_wedge_reported_after_the_decision_promises_nothing() {
    let mut bench = Bench::new();
    bench.step(FIRST, Step::Prepare);
    let commands = bench.step(FIRST, Step::Decide(value(1)));
    assert_eq!(commands, [Command::Conclude { cut: cut(1), stay: 0b111 }]);
    assert_eq!(bench.wedged(FIRST), []);
}

#[test]
fn a_takeover_that_expires_before_the_wedge_is_reported_is_set_again() {
    let mut bench = Bench::new();
    bench.step(FIRST, Step::Prepare);
    assert_eq!(bench.timer(Timer::Takeover), [Command::Arm(Timer::Takeover)]);
    bench.wedged(FIRST);
    let commands = bench.timer(Timer::Takeover);
    assert!(matches!(commands[..], [Command::Wedge(own)] if own > FIRST && own.proposer() == Rank(2)), "{commands:?}");
}
