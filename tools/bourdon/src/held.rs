//! One step between `bourdon lock` and its command: asks the kernel to kill the command when `bourdon lock` ends, then
//! becomes the command.
//!
//! The request survives exec, so it can be made here, without unsafe code between fork and exec. The kernel keeps it
//! for this process only: processes that the command starts are not killed with it.

use crate::exit::Failure;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

pub(crate) fn run(args: Args) -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::broken)?;
    // The parent may have died before this request.
    if getppid() != Pid::from_raw(args.parent) {
        return Err(Failure::broken("the lock's holder ended before its command began"));
    }
    let [program, rest @ ..] = &args.command[..] else { return Err(Failure::unusable("nothing to run")) };
    let error = Command::new(program).args(rest).exec();
    Err(Failure::unusable(format!("can't run {}: {error}", program.display())))
}
