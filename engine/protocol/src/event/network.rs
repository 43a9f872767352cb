//! What a node reports of the interface that its group's traffic uses.

use crate::ranks::Ranks;
use core::fmt::{Display, Formatter, Result};

/// The longest name that an interface can have, in bytes.
const NAME_MAX_BYTES: usize = 15;

/// The name of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceName {
    bytes: [u8; NAME_MAX_BYTES],
    length: u8,
}

impl InterfaceName {
    /// A longer name than interfaces can have is cut.
    pub fn new(name: &str) -> Self {
        let mut length = name.len().min(NAME_MAX_BYTES);
        while !name.is_char_boundary(length) {
            length -= 1;
        }
        let mut bytes = [0; NAME_MAX_BYTES];
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self { bytes, length: length as u8 }
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("it was cut between characters")
    }
}

impl Display for InterfaceName {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(self.as_str())
    }
}

/// Why a process can use its interface no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NetworkLoss {
    /// There is no interface of this name.
    NoInterface,
    /// The interface is down.
    Down,
    /// The interface has no address of the group's family.
    NoAddress,
    /// The host has the configured address no longer.
    AddressGone,
    /// The interface has an address, and the kernel refuses to open the sockets there.
    Refused,
}

/// The paths between a process and others that carry its short datagrams only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NarrowPaths {
    /// The members from which no long datagrams come.
    pub from: Ranks,
    /// The members that none that this process sends reach.
    pub to: Ranks,
}

impl NarrowPaths {
    /// Whether long datagrams pass on all paths, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.from.is_empty() && self.to.is_empty()
    }
}

impl Display for NarrowPaths {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (from, to) = (self.from, self.to);
        if !from.is_empty() {
            write!(f, "no long datagrams come from {from:?}")?;
        }
        f.write_str(match (from.is_empty(), to.is_empty()) {
            (_, true) => "",
            (true, _) => "no long datagrams of this process reach ",
            _ => ", and none of this process reach ",
        })?;
        if !to.is_empty() {
            write!(f, "{to:?}")?;
        }
        f.write_str(": lower limits.mtu_bytes at all processes, or mend the path")
    }
}

/// What is wrong, and what the process waits for.
pub(super) fn write_lost(f: &mut Formatter<'_>, interface: InterfaceName, why: NetworkLoss) -> Result {
    let what = match why {
        NetworkLoss::NoInterface => "does not exist; waiting until there is one of this name",
        NetworkLoss::Down => "is down; waiting until it is up (`ip link set up` brings it up)",
        NetworkLoss::NoAddress => "has no address; waiting until it has one",
        NetworkLoss::AddressGone => "has the address of this process no longer; waiting until it has it again",
        NetworkLoss::Refused => "has an address, and no sockets can be opened there; trying again",
    };
    write!(f, "interface {interface} {what}")
}
