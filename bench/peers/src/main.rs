//! `bourdon-peers`: other messaging systems, as ends of the bench's measurements.
//!
//! The bench starts this program as the near end and as the far ends of a round, exactly as it starts itself for
//! Bourdon, and sends each a [`Spec`]. An adapter only opens a [`Link`](bourdon_bench::Link) with the other ends; the
//! loops that send, stamp, count and check are the bench's own (`bourdon_bench::ends`), the same for every system. So a
//! peer can neither lose a message nor misplace one without the row reporting it.
//!
//! Each adapter is one file behind one feature; `README.md` lists what each needs to be built, and what is equal
//! between the systems and what is not.

#[cfg(feature = "aeron")]
mod aeron;
#[cfg(any(feature = "aeron", feature = "iceoryx2", feature = "nats"))]
mod cleaner;
#[cfg(feature = "crossbeam")]
mod crossbeam;
#[cfg(feature = "disruptor")]
mod disruptor;
#[cfg(feature = "iceoryx2")]
mod iceoryx2;
#[cfg(feature = "nats")]
mod jetstream;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rtrb")]
mod rtrb;
#[cfg(any(feature = "crossbeam", feature = "disruptor", feature = "rtrb"))]
mod slot;
#[cfg(any(feature = "nats", feature = "zeromq"))]
mod window;
#[cfg(feature = "zeromq")]
mod zeromq;

use bourdon_bench::{Failure, Peer, Spec, worker};
use std::process::ExitCode;
use std::time::Duration;

/// How long the ends of a round may take to connect.
#[cfg(any(feature = "aeron", feature = "iceoryx2", feature = "nats", feature = "zeromq"))]
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the end that the spec describes.
fn play(spec: &Spec) -> Result<(), Failure> {
    match spec.peer {
        #[cfg(feature = "aeron")]
        Some(Peer::Aeron | Peer::AeronIpc) => bourdon_bench::ends::play(spec, aeron::open(spec)?),
        #[cfg(feature = "iceoryx2")]
        Some(Peer::Iceoryx2) => bourdon_bench::ends::play(spec, iceoryx2::open(spec)?),
        #[cfg(feature = "nats")]
        Some(Peer::Nats) => bourdon_bench::ends::play(spec, nats::open(spec)?),
        #[cfg(feature = "nats")]
        Some(Peer::Jetstream) => bourdon_bench::ends::play(spec, jetstream::open(spec)?),
        #[cfg(feature = "zeromq")]
        Some(Peer::Zeromq) => bourdon_bench::ends::play(spec, zeromq::open(spec)?),
        #[cfg(feature = "crossbeam")]
        Some(Peer::Crossbeam) => slot::play::<crossbeam::Crossbeam>(spec),
        #[cfg(feature = "disruptor")]
        Some(Peer::Disruptor) => slot::play::<disruptor::Disruptor>(spec),
        #[cfg(feature = "rtrb")]
        Some(Peer::Rtrb) => slot::play::<rtrb::Rtrb>(spec),
        Some(peer) => Err(Failure::Unusable(format!(
            "this bourdon-peers was built without {name}: cargo build --release --manifest-path bench/peers/Cargo.toml \
             --features {name}",
            name = feature(peer)
        ))),
        None => Err(Failure::Unusable("the spec names no peer".into())),
    }
}

/// The version of a library in this program, as its lock file has it.
#[cfg(any(feature = "crossbeam", feature = "disruptor", feature = "iceoryx2", feature = "rtrb"))]
fn version(package: &str) -> Option<&'static str> {
    let lock = include_str!("../Cargo.lock");
    let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
    entry.split("version = \"").nth(1)?.split('"').next()
}

/// The feature that an adapter is behind.
fn feature(peer: Peer) -> &'static str {
    match peer {
        Peer::Aeron | Peer::AeronIpc => "aeron",
        Peer::Iceoryx2 => "iceoryx2",
        Peer::Zeromq => "zeromq",
        Peer::Nats | Peer::Jetstream => "nats",
        Peer::Crossbeam => "crossbeam",
        Peer::Rtrb => "rtrb",
        Peer::Disruptor => "disruptor",
        Peer::Raw | Peer::RawXdp | Peer::Corosync => "a system that bourdon-bench measures itself",
    }
}

fn main() -> ExitCode {
    match worker::run(play) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Unusable(why) | Failure::Broken(why)) => {
            eprintln!("bourdon-peers: {why}");
            ExitCode::from(2)
        }
    }
}
