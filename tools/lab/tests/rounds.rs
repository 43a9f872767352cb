//! Campaigns against an imitation of a group: a script that all its members copy.
//!
//! The members are a shell loop that copies lines of one file into its history and ends when a view leaves it out. The
//! test writes that file: it checks which members run, and appends a view when that changes and a delivery when it does
//! not. So the histories are right unless the test breaks them on purpose.

use bourdon_lab::hosts::Lab;
use bourdon_lab::judge::{Order, Reliability, Rules};
use bourdon_lab::rounds::{FaultKind, Plan, Report, run};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

const MEMBERS: usize = 3;

/// Reports where it begins to copy before it reports that it runs, so that it misses no view.
const MEMBER: &str = r#"
rank=$1 history=$2 dir=$3
exec 3<"$dir/script"
lines=$(wc -l <"$dir/script")
while [ "$lines" -gt 0 ]; do read -r line <&3; lines=$((lines - 1)); done
part=
echo $$ >"$dir/new-$rank" && mv "$dir/new-$rank" "$dir/pid-$rank"
while :; do
    if ! IFS= read -r line <&3; then part=$part$line; sleep 0.005; continue; fi
    line=$part$line part=
    case "$line" in
        V*) case ",${line##*	}," in *",$rank,"*) ;; *) exit ;; esac ;;
    esac
    printf '%s\n' "$line" >>"$history"
done
"#;

/// Whether the member with the recorded process id runs and is not stopped.
fn runs(folder: &Path, rank: usize) -> bool {
    let Ok(pid) = fs::read_to_string(folder.join(format!("pid-{rank}"))) else { return false };
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    // The name in brackets may hold anything.
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('T' | 'Z' | 'X'))
}

/// How long after one line of the script the next follows.
const PACE: Duration = Duration::from_millis(5);

/// Writes the script until it is stopped.
fn write_script(folder: &Path, stop: &Receiver<()>) {
    let mut script = OpenOptions::new().append(true).open(folder.join("script")).expect("it is there");
    let (mut view, mut members, mut number) = (0, Vec::new(), 0);
    while stop.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
        // Members that are to join; a removed member must first be seen to have ended.
        let now: Vec<usize> = (0..MEMBERS).filter(|rank| runs(folder, *rank)).collect();
        let complete = view > 0 || now.len() == MEMBERS;
        if complete && now != members {
            view += 1;
            let ranks: Vec<_> = now.iter().map(usize::to_string).collect();
            script.write_all(format!("V\t{view}\t{}\n", ranks.join(",")).as_bytes()).expect("written");
            members = now;
        } else if complete && members.len() == MEMBERS {
            let line = format!("D\t{view}\t{number}\tclient\t{number}\t-\t{number:016x}\n");
            script.write_all(line.as_bytes()).expect("written");
            number += 1;
        }
    }
}

fn campaign(fault: FaultKind, member: &str, patience: Duration) -> Option<Report> {
    if let Err(why) = Lab::new(1) {
        crate::skipped::report(why);
        return None;
    }
    let scratch = tempfile::tempdir().expect("a folder");
    let folder = scratch.path().to_owned();
    fs::write(folder.join("script"), "").expect("written");
    fs::write(folder.join("member.sh"), member).expect("written");
    let rules = Rules { order: Order::Total, reliability: Reliability::Reliable, allow_skips: false, running: true };
    let plan = Plan {
        members: MEMBERS,
        rounds: 4,
        fault,
        member: "sh {dir}/member.sh {rank} {dir}/member-{rank}{incarnation}.tsv {dir}".to_owned(),
        folder: folder.clone(),
        patience,
        rules,
    };
    let (stop, stopped) = channel();
    let writer = std::thread::spawn(move || write_script(&folder, &stopped));
    let report = run(&plan, &|line| println!("{line}")).expect("it can be run");
    stop.send(()).expect("the writer runs");
    writer.join().expect("the writer ends");
    Some(report)
}

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn the_killed_come_back_and_the_judge_agrees() {
    let Some(report) = campaign(FaultKind::Kill, MEMBER, PATIENCE) else { return };
    assert_eq!(report.failed, None, "{report:?}");
    assert_eq!((report.rounds.len(), report.restarts, report.false_evictions), (4, 4, 0), "{report:?}");
    assert!(report.rounds.iter().all(|round| round.heal_to_whole_ns.is_some()));
    assert_eq!(report.verdict.violations, [], "{report:?}");
    assert!(report.verdict.processes == 7 && report.verdict.deliveries > 0);
}

#[test]
fn the_stopped_end_when_removed_and_come_back() {
    let Some(report) = campaign(FaultKind::Stop, MEMBER, PATIENCE) else { return };
    assert_eq!((report.failed.as_deref(), report.rounds.len(), report.restarts), (None, 4, 4), "{report:?}");
    assert_eq!(report.verdict.violations, [], "{report:?}");
}

#[test]
fn a_group_that_does_not_notice_is_found_out() {
    // The script's writer sees no network, so it never removes a member that is cut off.
    let Some(report) = campaign(FaultKind::Cut, MEMBER, Duration::from_secs(5)) else { return };
    assert!(report.failed.is_some_and(|why| why.contains("no view without")));
}

#[test]
fn a_member_that_swaps_deliveries_is_found_out() {
    // Member 1 copies each even line after the odd one that follows it.
    let swapping = MEMBER.replace(
        "    printf",
        "    if [ \"$rank\" = 1 ]; then case \"$line\" in D*) if [ -z \"$kept\" ]; then kept=$line; continue; fi; \
         printf '%s\\n' \"$line\" >>\"$history\"; line=$kept; kept=;; esac; fi\n    printf",
    );
    let Some(report) = campaign(FaultKind::Kill, &swapping, PATIENCE) else { return };
    assert!(report.verdict.violations.iter().any(|violation| violation.invariant == 8), "{report:?}");
}
