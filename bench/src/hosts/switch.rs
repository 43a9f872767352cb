//! Cables pulled at the bridge between hosts: hosts notice only silence.
//!
//! The measured times are a few tens of milliseconds, so a rule must be in force at once, not after a program has
//! started: one `nft` in the bridge's namespace stays ready and reads commands from its standard input. It ends when
//! that ends.

use super::Namespace;
use crate::Failure;
use std::io::Write;
use std::process::{Child, Stdio};

/// Two sets to fill: ports that are cut, and pairs of ports that are cut in one direction; address resolution passes
/// the latter, because otherwise the other direction would fail too.
const RULES: &str = "\
add table bridge cuts
add set bridge cuts cut { type ifname; }
add set bridge cuts one_way { type ifname . ifname; }
add chain bridge cuts passing { type filter hook forward priority 0; }
add rule bridge cuts passing iifname @cut drop
add rule bridge cuts passing oifname @cut drop
add rule bridge cuts passing ether type arp accept
add rule bridge cuts passing iifname . oifname @one_way drop
";

/// The bridge's rules.
pub(super) struct Switch {
    nft: Child,
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.nft.kill();
        let _ = self.nft.wait();
    }
}

impl Switch {
    pub(super) fn start(bridge: &Namespace) -> Result<Self, Failure> {
        let missing = |error| Failure::Unusable(format!("can't run nft on the bridge: {error}; install nftables"));
        let mut command = bridge.enter();
        command.args(["nft", "--interactive"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
        let mut switch = Self { nft: command.spawn().map_err(missing)? };
        switch.run(RULES)?;
        Ok(switch)
    }

    /// A command for `nft`: in force within about a hundred microseconds.
    pub(super) fn run(&mut self, command: &str) -> Result<(), Failure> {
        let stdin = self.nft.stdin.as_mut().expect("stdin is piped");
        let written = stdin.write_all(command.as_bytes()).and_then(|()| stdin.flush());
        written.map_err(|error| Failure::Unusable(format!("nft on the bridge has ended ({error}); install nftables")))
    }
}
