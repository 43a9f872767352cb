//! What a process counts: numbered, labelled, in one place, so that tools, docs and metrics name the same things.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $label:literal, $help:literal;)+) => {
        /// One counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        #[allow(missing_docs)] // `help` describes it
        pub enum Counter { $($name),+ }

        impl Counter {
            /// All counters, by number.
            pub const ALL: &'static [Counter] = &[$(Counter::$name),+];

            /// Its name in tools and metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label),+ }
            }

            /// What it counts.
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help),+ }
            }
        }
    };
}

counters! {
    Published = "published", "messages this process published";
    Delivered = "delivered", "messages delivered to the application, own ones included";
    DeliveredBytes = "delivered_bytes", "their payload bytes";
    DatagramsSent = "datagrams_sent", "datagrams of this process's stream sent for the first time";
    DatagramsReceived = "datagrams_received", "new datagrams of other streams received";
    ControlSent = "control_sent", "heartbeats, acknowledgements and other control datagrams sent";
    RowsSent = "rows_sent", "acknowledgement rows sent, alone or with data";
    OrderRunsSent = "order_runs_sent", "runs of other members' messages put in order";
    NaksSent = "naks_sent", "requests for repair sent";
    NaksReceived = "naks_received", "requests for repair received";
    NaksSuppressed = "naks_suppressed", "datagrams not requested because another receiver had just requested them";
    RepairsSent = "repairs_sent", "datagrams retransmitted";
    RepairsRefused = "repairs_refused", "repairs not sent because the repair budget was used up or one was under way";
    RepairsReceived = "repairs_received", "missing datagrams received as repairs";
    Relayed = "relayed", "datagrams of other members forwarded when they were first received";
    Views = "views", "views installed or followed";
    Ballots = "ballots", "ballots started by this process to change the view";
    Resubmitted = "resubmitted", "messages published again because the view changed before they were delivered";
    Retracted = "retracted", "messages an observer delivered that the view change voided";
    SnapshotsTaken = "snapshots_taken", "snapshots fetched from a member";
    Gaps = "gaps", "messages given up: no longer retained, or the group allows losses";
    DiscardedForeign = "discarded_foreign", "datagrams that are not Bourdon's";
    DiscardedVersion = "discarded_version", "datagrams of another version";
    DiscardedGroup = "discarded_group", "datagrams of another group on this address";
    DiscardedInstance = "discarded_instance", "datagrams of another instance of the group: an earlier or a later \
         formation";
    DiscardedDamaged = "discarded_damaged", "datagrams with a wrong checksum or cut short";
    DiscardedMalformed = "discarded_malformed", "datagrams with malformed frames";
    DiscardedImplausible = "discarded_implausible", "frames whose numbers or members no process of this group can \
         have sent";
    DiscardedEpoch = "discarded_epoch", "datagrams of another view";
    DiscardedSender = "discarded_sender", "datagrams of a rank, channel or incarnation not in the view";
    DiscardedDuplicate = "discarded_duplicate", "datagrams received before";
    DiscardedWindow = "discarded_window", "datagrams beyond the receive window";
    DiscardedBallot = "discarded_ballot", "ballots with a round that no member can have reached";
    DroppedSteps = "dropped_steps", "steps of ballots dropped because too many waited for the control thread";
    DiscardedCut = "discarded_cut", "steps of a ballot with a cut beyond what its senders can have sent";
    DiscardedRun = "discarded_run", "datagrams that put messages in order that cannot exist";
    DiscardedView = "discarded_view", "views that no majority of their members had announced";
    DiscardedMulticast = "discarded_multicast", "frames for one process only that were sent to all";
    DiscardedAddress = "discarded_address", "heartbeats that gave a process another address than it had announced";
    ChallengesSent = "challenges_sent", "cookies sent because the reply address of a request had proved nothing";
    ChallengesTaken = "challenges_taken", "requests repeated with the cookie from a challenge";
    AnswersRefused = "answers_refused", "replies not sent: too long for an address that had proved nothing";
    ProgressSent = "progress_sent", "reports of an observer to a member that waits for it";
    ProgressReceived = "progress_received", "such reports received";
    GatingObservers = "gating_observers", "observers that this member's stream waits for now";
    CongestionSent = "congestion_sent", "reports of an observer that it loses too much, to a member that paces for it";
    CongestionReceived = "congestion_received", "such reports received";
    RatesLowered = "rates_lowered", "times that this member lowered its rate because of such a report";
    RateBytesPerS = "rate_bytes_per_s", "bytes a second at which this member may send now; 0: there is no limit";
    RefusedRate = "refused_rate", "publications refused because they would be sent too fast";
    FellBehind = "fell_behind", "times that this observer could not catch up and went on at the present";
    GatesEnded = "gates_ended", "observers that this member no longer waits for, because they were silent or too slow";
    DiscardedOwn = "discarded_own", "own multicasts that came back";
    DiscardedOutbox = "discarded_outbox", "control datagrams not sent because the outbox was full";
    OrderFaults = "order_faults", "messages the sequencer ordered twice or out of place";
    RefusedWindow = "refused_window", "publications refused because the window was full";
    RefusedOther = "refused_other", "publications refused for other reasons";
    DirectTaken = "direct_taken", "direct messages taken for the application";
    DirectRefused = "direct_refused", "direct messages refused because the application's queue or the table of \
         senders was full";
    DirectDuplicates = "direct_duplicates", "direct messages received before, or given up by their sender";
    LockMessages = "lock_messages", "messages of the lock algorithm sent to other members, commands in the total \
         order included";
    LockEntries = "lock_entries", "locks granted to this process";
    ElectionMessages = "election_messages", "messages of the election algorithm sent to other members";
    ElectionsWon = "elections_won", "elections won by this process";
    LinkOverhead = "link_overhead", "datagrams about locks and leaders that only acknowledged or repeated";
    HeartbeatsPadded = "heartbeats_padded", "heartbeats that were as long as the group's longest datagrams";
    NarrowPaths = "narrow_paths", "processes whose short datagrams come and whose long ones do not, now";
    EventsLost = "events_lost", "events the application did not fetch in time";
}

/// All counters of a process.
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// A counter's value.
    #[inline]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize]
    }

    #[inline]
    pub(crate) fn add(&mut self, counter: Counter, count: u64) {
        self.0[counter as usize] += count;
    }

    pub(crate) fn set(&mut self, counter: Counter, value: u64) {
        self.0[counter as usize] = value;
    }

    /// All of them, by number.
    pub fn values(&self) -> &[u64] {
        &self.0
    }
}
