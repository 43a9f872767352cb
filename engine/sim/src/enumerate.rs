//! Every crash point of short scripts at the level `durable`.
//!
//! Drawn crashes seldom fall between two given calls to a disk. So power fails here in each call that a member makes in
//! a short script, at that member or at all, and leaves each part of what was not synced. The members start again, and
//! the run is judged like every other.

use crate::options::{CrashPoint, Options};
use crate::plan::Plan;
use crate::report::Report;
use crate::runner::{attempt, in_parallel, run_plan};
use std::str::FromStr;

/// How many scripts there are.
const SCRIPTS: u64 = 5;
/// So many parts of what was not synced are tried at a point, evenly spread over all: the whole and nothing among them.
/// A batch of a few records has hundreds, most of which the log cuts at the same place.
const PARTS_MAX: usize = 24;

/// A script, and where power fails in it: `SCRIPT:MEMBER:CALL:PART`, with `:all` behind it if all members lose power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptedCrash(u64, CrashPoint);

impl FromStr for ScriptedCrash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (numbers, all) = text.strip_suffix(":all").map_or((text, false), |numbers| (numbers, true));
        let numbers: Result<Vec<usize>, _> = numbers.split(':').map(str::parse).collect();
        match numbers.as_deref() {
            Ok([script, member @ 0..=2, call, part]) if (*script as u64) < SCRIPTS => {
                Ok(Self(*script as u64, CrashPoint { member: *member, call: *call, part: *part, all }))
            }
            _ => Err(format!("{text:?} is no crash: use SCRIPT:MEMBER:CALL:PART or SCRIPT:MEMBER:CALL:PART:all")),
        }
    }
}

/// Runs one of them.
pub fn run_scripted_crash(crash: ScriptedCrash, options: Options) -> Report {
    let ScriptedCrash(script, point) = crash;
    run_plan(&Plan::crash_script(script), script, Options { crash_point: Some(point), ..options })
}

/// Runs every crash of every script; with a limit, about so many, spread evenly.
pub fn enumerate_crashes(limit: Option<u64>, options: Options) -> Report {
    let mut points = Vec::new();
    for script in 0..SCRIPTS {
        let outcome = attempt(&Plan::crash_script(script), script, Options { crash_point: None, ..options });
        for (member, calls) in outcome.disk_calls.iter().enumerate() {
            let calls = (0..*calls).flat_map(|call| [(call, false), (call, true)]);
            points.extend(calls.map(|(call, all)| (script, CrashPoint { member, call, part: 0, all })));
        }
    }
    let step = limit.map_or(1, |limit| (points.len() * PARTS_MAX / 2 / (limit.max(1) as usize)).max(1));
    let threads = options.threads.max(1);
    in_parallel(threads, |thread| {
        let mut report = Report::default();
        for (script, point) in points.iter().step_by(step).skip(thread).step_by(threads) {
            report.merge(run_point(*script, *point, options));
        }
        report
    })
}

/// Runs all parts of one point.
fn run_point(script: u64, point: CrashPoint, options: Options) -> Report {
    let plan = Plan::crash_script(script);
    let states = attempt(&plan, script, Options { crash_point: Some(point), ..options }).crash_states;
    let mut report = Report::default();
    let count = states.min(PARTS_MAX);
    for place in 0..count {
        let part = if count > 1 { place * (states - 1) / (count - 1) } else { 0 };
        let crash_point = Some(CrashPoint { part, ..point });
        report.merge(run_plan(&plan, script, Options { crash_point, ..options }));
    }
    report
}
