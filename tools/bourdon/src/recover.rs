//! `bourdon recover --force-majority GROUP`: makes the survivors of a group whose majority is gone a group again.
//!
//! The member beside which it runs founds a new instance of the group; the other survivors join that by themselves
//! (docs/operating.md). What is lost by it is known best before it is done, so the command shows that first and has it
//! agreed to, and the node does it only to the view that was shown. A member that has just ended still counts as heard,
//! and a repair may be under way, so obstacles that may pass are waited for.

use crate::admin::{ask, ask_with};
use crate::exit::{Failure, note, print};
use crate::session::At;
use bourdon::counters::Found;
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A node answers between two rounds of its work.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long obstacles that may pass are waited for: longer than a member that has ended counts as heard, 2 s.
const PATIENCE: Duration = Duration::from_secs(4);
const INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The majority is gone for good: go on without it
    #[arg(long, required = true)]
    force_majority: bool,
    /// The group's name, or GROUP/CHANNEL [default: the group whose member runs here, not its channels]
    group: Option<String>,
    /// Where the nodes keep their counters, if threads.directory is set
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// A node's configuration: it names the group and the directory, and of several members here that node is asked
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    let is_chosen = args.config.is_some();
    let at = At { group: args.group, directory: args.directory, config: args.config };
    let mut members = at.members()?;
    members.truncate(if is_chosen { 1 } else { members.len() });
    let (member, before) = look(&members)?;
    let shown = Shown { member, before };
    if !before_is_open(&shown.before) {
        let why = shown.before["why"].as_str().unwrap_or("");
        if args.json {
            print(&format!("{}\n", shown.object(&shown.before)))?;
        }
        return Err(Failure::broken(format!("{}: refused: {why}", shown.name())));
    }
    if !args.json {
        print(&shown.text())?;
    }
    if !args.yes && !is_agreed(&shown)? {
        return Err(Failure::broken("nothing was done"));
    }
    let request = json!({ "request": "recover", "instance": shown.before["instance"], "epoch": shown.before["epoch"] });
    let after = ask_with(shown.member, &request, "recovery", ANSWER_MAX)?;
    if after["done"] != true {
        let why = after["why"].as_str().unwrap_or("");
        return Err(Failure::broken(format!("{}: refused: {why}", shown.name())));
    }
    print(&if args.json { format!("{}\n", shown.object(&after)) } else { shown.outcome(&after) })
}

fn before_is_open(report: &Value) -> bool {
    report["obstacle"].is_null()
}

/// The member at which nothing stands in the way, or else the first one with what does.
fn look(members: &[Found]) -> Result<(&Found, Value), Failure> {
    let began = Instant::now();
    let mut has_waited = false;
    loop {
        let mut refused: Option<(&Found, Value)> = None;
        let mut may_pass = false;
        for member in members {
            let report = ask(member, "recover", "recovery", ANSWER_MAX)?;
            if before_is_open(&report) {
                return Ok((member, report));
            }
            may_pass |= report["may_pass"] == true;
            refused.get_or_insert((member, report));
        }
        let Some(refused) = refused else { return Err(Failure::unusable("no member of the group runs here")) };
        if !may_pass || began.elapsed() >= PATIENCE {
            return Ok(refused);
        }
        if !std::mem::replace(&mut has_waited, true) {
            note(format!(
                "not yet: {}; waiting up to {} s",
                refused.1["why"].as_str().unwrap_or(""),
                PATIENCE.as_secs()
            ));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Asks on the terminal.
fn is_agreed(shown: &Shown<'_>) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let name = shown.name();
        return Err(Failure::unusable(format!("{name}: no terminal to ask at: nothing was done; agree with --yes")));
    }
    let mut stderr = std::io::stderr().lock();
    let asked = write!(stderr, "Found the group again without them? [y/N] ").and_then(|()| stderr.flush());
    asked.map_err(|error| Failure::broken(format!("can't ask: {error}")))?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::broken(format!("can't read: {error}")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// A member, and what a recovery at it would do.
struct Shown<'a> {
    member: &'a Found,
    before: Value,
}

impl Shown<'_> {
    fn name(&self) -> String {
        let about = &self.member.description;
        let rank = about.rank.map(|rank| format!(" {rank}")).unwrap_or_default();
        format!("{}: {}{rank}", about.group, about.role)
    }

    fn object(&self, report: &Value) -> Value {
        let about = &self.member.description;
        json!({ "group": about.group, "rank": about.rank, "pid": self.member.pid, "recovery": report })
    }

    /// What will happen, and what may be lost.
    fn text(&self) -> String {
        let report = &self.before;
        let list = |key: &str| ranks(&report[key]);
        let is_forming = report["epoch"] == 0;
        let view = if is_forming { "no view yet".to_owned() } else { format!("view {}", report["epoch"]) };
        let mut out = format!("{}, {view}: founds a new instance of the group, alone at first\n", self.name());
        let what = if is_forming { "never came" } else { "silent, given up" };
        out += &format!("  {what}: {}\n", list("silent").unwrap_or_else(|| "no member".to_owned()));
        if let Some(survivors) = list("survivors") {
            let how = if is_forming {
                "join"
            } else {
                "leave their view and join; state that no snapshot gives begins empty"
            };
            out += &format!("  survivors: {survivors}; they {how}\n");
        }
        if is_forming {
            return out + "  nothing is lost; members that come later join\n";
        }
        let messages = |key: &str| report[key].as_u64().unwrap_or(0);
        let (own, held) = (messages("unacknowledged"), messages("undelivered"));
        out += &format!("  in doubt: {own} messages published here and not acknowledged\n");
        out += &format!("  lost: {held} messages received here and not delivered\n");
        if let Some(ahead) = list("ahead") {
            out += &format!("  lost: messages that members {ahead} have delivered and this member has not\n");
        }
        out += "  lost: what the silent members published or delivered and this member never received\n";
        out += "  lost: locks and leaderships, of all members; later fencing tokens are higher\n";
        out += "  If the silent members are alive and only cut off, they go on by themselves. Then there are two\n";
        out += "  groups, and what one of them did meanwhile is lost when you stop it.\n";
        out
    }

    fn outcome(&self, after: &Value) -> String {
        let (instance, birth) = (after["new_instance"].as_str().unwrap_or(""), &after["birth"]);
        let others = match ranks(&after["survivors"]) {
            Some(survivors) => format!("members {survivors} join by themselves; see `bourdon view`"),
            None => "members that are started again join by themselves; see `bourdon view`".to_owned(),
        };
        let own = after["unacknowledged"].as_u64().unwrap_or(0);
        format!(
            "{}: founded instance {instance}, birth {birth}: it takes messages again\n  {own} messages published here \
             before are in doubt: they are not published again\n  {others}\n",
            self.name()
        )
    }
}

/// Ranks in words; none if there are none.
fn ranks(list: &Value) -> Option<String> {
    let ranks: Vec<_> = list.as_array().into_iter().flatten().map(Value::to_string).collect();
    (!ranks.is_empty()).then(|| ranks.join(", "))
}
