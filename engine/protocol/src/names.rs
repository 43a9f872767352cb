//! The names of orders, levels and algorithms: the same in settings, in the simulator's plans and on the command line.

use crate::config::{Order, Reliability};
use crate::control::coordination::{ElectionKind, MutexKind};
use alloc::string::String;
use core::fmt;
use core::str::FromStr;

/// Gives each value of an enum its name. `$refusal` completes the sentence about a name that none of them has.
macro_rules! named {
    ($kind:ident, $refusal:literal, $count:literal, { $($value:ident: $name:literal,)* }) => {
        impl $kind {
            /// All of them.
            pub const ALL: [Self; $count] = [$(Self::$value),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $kind {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let found = Self::ALL.into_iter().find(|value| value.name() == text);
                found.ok_or_else(|| {
                    let names = Self::ALL.map(Self::name).join(", ");
                    alloc::format!("{text:?} {}; there are: {names}", $refusal)
                })
            }
        }
    };
}

named!(Order, "is no order", 5, {
    Unordered: "unordered",
    Fifo: "fifo",
    Causal: "causal",
    Total: "total",
    RealTime: "realtime",
});

named!(Reliability, "is no level of reliability", 6, {
    Unreliable: "unreliable",
    BestEffort: "best-effort",
    Reliable: "reliable",
    Uniform: "uniform",
    Stable: "stable",
    Durable: "durable",
});

named!(MutexKind, "grants no locks", 5, {
    Replicated: "replicated",
    Central: "central",
    Lamport: "lamport",
    RicartAgrawala: "ricart-agrawala",
    TokenRing: "token-ring",
});

named!(ElectionKind, "elects no leader", 2, {
    Bully: "bully",
    Ring: "ring",
});
