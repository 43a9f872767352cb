//! Every crash state of short scripts: no record that a sync acknowledged is lost, none is invented.
//!
//! A script runs until power fails in one of its calls to the disk, for each of them. Each state that the disk may be
//! in then is recovered, checked, written on, and recovered again. Planted bugs show that the check can fail.

use bourdon_log::sim_disk::SimDisk;
use bourdon_log::{Entry, Error, Log, Mutant, Retention, Settings};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const INSTANCE: u64 = 0xb0b0;
const SEGMENT_BYTES: u64 = 20_480;

/// What a script does.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Appends a record of this length.
    Append(usize),
    Sync,
    Mark,
    /// The process ends as by a kill, and the next one opens the log.
    Reopen,
    /// Keeps this many bytes.
    Prune(u64),
}

use Step::{Append, Mark, Prune, Reopen, Sync};

const SCRIPTS: &[&[Step]] = &[
    &[Append(100), Sync, Append(10), Append(700), Append(30), Sync, Append(5), Sync],
    &[Append(600), Append(600), Append(600), Sync, Reopen, Append(50), Sync, Mark, Reopen, Append(70), Mark],
    // Segments fill, expire and are used again.
    &[
        Append(9000),
        Sync,
        Append(9000),
        Sync,
        Append(9000),
        Prune(0),
        Append(300),
        Sync,
        Append(9000),
        Sync,
        Prune(20_000),
        Append(9000),
        Sync,
        Prune(0),
        Append(20),
        Append(12_000),
        Sync,
    ],
    &[Append(0), Mark, Reopen, Reopen, Append(1), Reopen, Append(2), Sync, Reopen, Prune(0), Append(3), Sync],
];

/// What the owner of the log knows.
#[derive(Clone, Debug, Default)]
struct Owner {
    /// The records that may stand at each position.
    appended: BTreeMap<u64, Vec<Vec<u8>>>,
    /// All before it were acknowledged, or were handed out by recovery.
    acknowledged: u64,
    /// What it asked to keep.
    kept_from: u64,
    count: u64,
}

impl Owner {
    fn payload(&mut self, position: u64, length: usize) -> Vec<u8> {
        self.count += 1;
        let mut rng = Rng::with_seed(self.count);
        let payload: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        self.appended.entry(position).or_default().push(payload.clone());
        payload
    }

    fn append(&mut self, log: &mut Log<SimDisk>, length: usize) -> Result<(), Error> {
        let position = log.next();
        let payload = self.payload(position, length);
        let appended = log.append(1, position, &payload)?;
        assert_eq!(appended, position);
        Ok(())
    }

    /// Takes over what a sync or a recovery has given: from now on it must stay. What stands at a position is known.
    fn rely(&mut self, log: &Log<SimDisk>) {
        self.acknowledged = log.synced();
    }

    fn step(&mut self, log: &mut Log<SimDisk>, step: Step) -> Result<(), Error> {
        match step {
            Append(length) => self.append(log, length),
            Sync => log.sync().map(|_| self.rely(log)),
            Mark => log.mark().map(|()| self.rely(log)),
            Prune(bytes) => {
                // Power may fail in the middle of it.
                self.kept_from = log.segments().last().map_or(0, |last| last.first_position);
                let pruned = log.prune(Retention { bytes: Some(bytes), age_ns: None }, 0);
                pruned.map(|_| self.kept_from = log.first())
            }
            Reopen => unreachable!("the runner opens the log"),
        }
    }

    /// Compares what the log holds with what it must and may hold.
    fn check(&self, log: &Log<SimDisk>) -> Result<(), String> {
        let (mut position, mut fault) = (log.first(), None);
        if position > self.kept_from {
            return Err(format!("the log begins at {position}, and was to keep {}", self.kept_from));
        }
        let end = log.read(0, |entry| {
            match entry {
                Entry::Record(record) => {
                    let may_be = self.appended.get(&record.position);
                    let is_known = may_be.is_some_and(|all| all.iter().any(|payload| payload == record.bytes));
                    if record.position != position || !is_known {
                        fault = Some(format!("record {} was never appended", record.position));
                    }
                    position = record.position + 1;
                }
                Entry::Damage(damage) => {
                    if damage.was_synced || damage.from < self.acknowledged && damage.to > self.kept_from {
                        fault = Some(format!("lost what was synced, {damage}"));
                    }
                    position = damage.to;
                }
            }
            if fault.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let end = end.map_err(|error| format!("reading: {error}"))?;
        if fault.is_none() && (end < self.acknowledged || log.next() < self.acknowledged) {
            fault = Some(format!("lost records {end} to {}", self.acknowledged));
        }
        fault.map_or(Ok(()), Err)
    }

    /// Forgets what else may have stood where records were found, so that they may not change any more.
    fn settle(&mut self, log: &Log<SimDisk>) -> Result<(), String> {
        let mut found = BTreeMap::new();
        let read = log.read(0, |entry| {
            if let Entry::Record(record) = entry {
                found.insert(record.position, vec![record.bytes.to_vec()]);
            }
            ControlFlow::Continue(())
        });
        self.appended = found;
        read.map(|_| ()).map_err(|error| error.to_string())
    }
}

fn settings(mutant: Option<Mutant>) -> Settings {
    let settings = Settings::new(INSTANCE);
    Settings { segment_bytes: SEGMENT_BYTES, mutant, ..settings }
}

fn open(disk: &SimDisk, mutant: Option<Mutant>) -> Result<Log<SimDisk>, String> {
    Log::open(disk.clone(), settings(mutant)).map_err(|error| format!("opening: {error}"))
}

/// Runs the script until it ends or a call fails.
fn run(disk: &SimDisk, script: &[Step], mutant: Option<Mutant>) -> Result<Owner, String> {
    let mut owner = Owner::default();
    let Ok(mut log) = open(disk, mutant) else { return Ok(owner) };
    for step in script {
        if let Reopen = step {
            drop(log);
            match Log::open(disk.clone(), settings(mutant)) {
                Ok(opened) => log = opened,
                Err(_) if disk.is_off() => return Ok(owner),
                Err(error) => return Err(format!("opening: {error}")),
            }
            owner.check(&log)?;
            owner.rely(&log);
        } else if let Err(error) = owner.step(&mut log, *step) {
            assert!(disk.is_off(), "{step:?} fails only without power: {error}");
            return Ok(owner);
        }
    }
    Ok(owner)
}

/// Recovers the disk, and checks; then writes on, with or without the unproved rest, loses power again, and checks.
fn recover(disk: &SimDisk, owner: &Owner, mutant: Option<Mutant>, rng: &mut Rng) -> Result<(), String> {
    let cuts = {
        let log = open(&disk.copy(), mutant)?;
        owner.check(&log)?;
        log.recovery().damage.first().map(|damage| damage.from)
    };
    for cut in [None, cuts] {
        let (disk, mut owner) = (disk.copy(), owner.clone());
        let mut log = open(&disk, mutant)?;
        owner.rely(&log);
        owner.settle(&log)?;
        if let Some(position) = cut {
            log.cut(position).map_err(|error| error.to_string())?;
            owner.acknowledged = position;
        } else {
            // Holes stay holes: they are known, and no record appears in them.
            owner.acknowledged = log.recovery().damage.first().map_or(log.next(), |damage| damage.from);
        }
        for length in [40, 900] {
            owner.append(&mut log, length).map_err(|error| error.to_string())?;
        }
        log.sync().map_err(|error| error.to_string())?;
        if cut.is_some() || cuts.is_none() {
            owner.rely(&log);
            owner.settle(&log)?;
        }
        drop(log);
        for state in disk.crash_states(|| rng.bool()).into_iter().take(16) {
            let log = open(&state, mutant)?;
            match (cut.is_none(), cuts) {
                (true, Some(_)) => {
                    let (from, next) = (log.next() - 2, log.next());
                    let end = log.read(from, |_| ControlFlow::Continue(()));
                    assert_eq!(end.map_err(|error| error.to_string())?, next);
                }
                _ => owner.check(&log)?,
            }
        }
    }
    Ok(())
}

/// Power fails in each call of the script in turn. Returns how many states were recovered.
fn enumerate(script: &[Step], mutant: Option<Mutant>) -> Result<usize, String> {
    let whole = SimDisk::default();
    run(&whole, script, mutant)?;
    let (mut count, mut rng) = (0, Rng::with_seed(7));
    for call in 0..=whole.calls() {
        let disk = SimDisk::default();
        disk.fail_power_at(call);
        let owner = run(&disk, script, mutant).map_err(|fault| format!("call {call}: {fault}"))?;
        for (index, state) in disk.crash_states(|| rng.bool()).into_iter().enumerate() {
            let recovered = recover(&state, &owner, mutant, &mut rng);
            recovered.map_err(|fault| format!("{script:?}, call {call}, state {index}: {fault}"))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Each sync of the script fails in turn; its owner ignores what the log reports. Then power fails, or a new process
/// opens the log and power fails after that.
fn failing_syncs(script: &[Step], mutant: Option<Mutant>) -> Result<(), String> {
    let mut rng = Rng::with_seed(8);
    for sync in 0..24 {
        let disk = SimDisk::default();
        disk.fail_sync_at(sync);
        let mut owner = Owner::default();
        let Ok(mut log) = open(&disk, mutant) else { continue };
        for step in script.iter().filter(|step| !matches!(step, Reopen)) {
            let _ = owner.step(&mut log, *step);
        }
        drop(log);
        for state in disk.crash_states(|| rng.bool()) {
            let log = open(&state, mutant).map_err(|fault| format!("sync {sync}: {fault}"))?;
            owner.check(&log).map_err(|fault| format!("sync {sync}: {fault}"))?;
        }
        let Ok(log) = open(&disk, mutant) else { continue }; // the sync that fails is this one's
        owner.rely(&log);
        owner.acknowledged = log.recovery().damage.first().map_or(log.synced(), |damage| damage.from);
        drop(log);
        for state in disk.crash_states(|| rng.bool()) {
            let log = open(&state, mutant)?;
            owner.check(&log).map_err(|fault| format!("sync {sync}, opened again: {fault}"))?;
        }
    }
    Ok(())
}

/// A batch is torn and cut, its full segment expires and its file is used again: at the offset where the next record is
/// expected stands a valid one of that position, of the earlier use.
fn reuse(mutant: Option<Mutant>) -> Result<(), String> {
    let disk = SimDisk::default();
    let mut owner = Owner::default();
    let whole = |log: &mut Log<SimDisk>, owner: &mut Owner| -> Result<(), Error> {
        owner.append(log, 4096 - 48)?; // position 0: its first sector will be lost
        owner.append(log, 4096 - 48)?;
        owner.append(log, 4096 - 48)?; // position 2 fills the segment, but for a mark
        log.sync().map(|_| ())
    };
    let mut log = open(&disk, mutant)?;
    whole(&mut log, &mut owner).map_err(|error| error.to_string())?;
    drop(log);
    let name = disk.names().remove(0);
    disk.change(&name, |bytes| bytes[4096..4608].fill(0)); // as if power had failed in the sync
    owner.appended.clear();
    let mut log = open(&disk, mutant)?;
    let step = |log: &mut Log<SimDisk>, owner: &mut Owner, length| -> Result<(), Error> {
        owner.append(log, length)?;
        log.sync()?;
        Ok(())
    };
    log.cut(0).map_err(|error| error.to_string())?;
    step(&mut log, &mut owner, 10).map_err(|error| error.to_string())?;
    drop(log);
    let mut log = open(&disk, mutant)?;
    log.prune(Retention { bytes: Some(0), age_ns: None }, 0).map_err(|error| error.to_string())?;
    assert!(disk.names().contains(&"spare".to_owned()), "the file is kept for the next segment");
    step(&mut log, &mut owner, 8192 - 48).map_err(|error| error.to_string())?;
    owner.rely(&log);
    drop(log);
    let log = open(&disk.copy(), mutant)?;
    owner.check(&log)
}

#[test]
fn no_synced_record_is_lost_and_none_is_invented() {
    let mut count = 0;
    for script in SCRIPTS {
        count += enumerate(script, None).expect("every state recovers");
        failing_syncs(script, None).expect("a failed sync acknowledges nothing");
    }
    println!("{count} crash states");
    reuse(None).expect("a record of an earlier use is not adopted");
}

#[test]
fn every_planted_bug_is_caught() {
    let by_crash = |mutant| SCRIPTS.iter().find_map(|script| enumerate(script, Some(mutant)).err());
    let by_failing_sync = |mutant| SCRIPTS.iter().find_map(|script| failing_syncs(script, Some(mutant)).err());
    let caught = [
        (Mutant::AcknowledgeBeforeSync, by_crash(Mutant::AcknowledgeBeforeSync)),
        (Mutant::ForgetDirectorySync, by_crash(Mutant::ForgetDirectorySync)),
        (Mutant::WriteOnAfterCut, by_crash(Mutant::WriteOnAfterCut)),
        (Mutant::ShareBlockBetweenBatches, by_crash(Mutant::ShareBlockBetweenBatches)),
        (Mutant::ContinueAfterFailedSync, by_failing_sync(Mutant::ContinueAfterFailedSync)),
        (Mutant::TrustPagesAtOpen, by_failing_sync(Mutant::TrustPagesAtOpen)),
        (Mutant::ChecksumWithoutGeneration, reuse(Some(Mutant::ChecksumWithoutGeneration)).err()),
    ]; // `damage.rs` catches the last one, `CutAtFirstDamage`
    for (mutant, fault) in caught {
        println!("{mutant:?}: {}", fault.as_deref().unwrap_or("missed"));
        assert!(fault.is_some(), "{mutant:?} is missed");
    }
}
