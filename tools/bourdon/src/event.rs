//! Events of the group as objects: what `bourdon node --json`, `subscribe --json` and scripts read.

use bourdon::Event;
use bourdon::event::{Ranks, Waiting};
use bourdon::id::Address;
use serde_json::{Value, json};

/// The event as an object. `left_out` counts those like it that no line reported before it.
pub(crate) fn object(event: Event, left_out: u64) -> Value {
    let at_ns = bourdon::time::Clock::start().wall_ns();
    let mut object = json!({
        "event": event.name(), "at_ns": at_ns, "rank": event.rank().map(|rank| rank.0), "text": text(event, left_out),
        "left_out": left_out,
    });
    match event {
        Event::View { epoch, members, sequencer, left, failed } => {
            object["epoch"] = epoch.0.into();
            object["members"] = ranks(members);
            object["left"] = ranks(left);
            object["failed"] = ranks(failed);
            object["sequencer"] = sequencer.0.into();
        }
        Event::Gap { sender, from, to } | Event::Retracted { sender, from, to } => {
            object["sender"] = sender.0.into();
            object["from"] = from.0.into();
            object["to"] = to.0.into();
        }
        Event::Missed { count } => object["count"] = count.into(),
        Event::Waiting(waiting) => add_waiting(&mut object, &waiting),
        Event::Reached(reach) => {
            object["by_multicast"] = reach.by_multicast.into();
            object["by_tcp"] = reach.by_mesh.into();
            object["by_shm"] = reach.by_shm.into();
        }
        Event::Moved { address, epoch, members, .. } => {
            object["address"] = text_of(address);
            object["epoch"] = epoch.0.into();
            object["members"] = ranks(members);
        }
        Event::StorageWaits { waited_ns, .. } | Event::StorageWorks { waited_ns } => {
            object["is_full"] = matches!(event, Event::StorageWaits { is_full: true, .. }).into();
            object["waited_ns"] = waited_ns.into();
        }
        Event::NetworkLost { interface, .. } => object["interface"] = interface.as_str().into(),
        Event::NetworkBack { interface, address, before } => {
            object["interface"] = interface.as_str().into();
            object["address"] = text_of(address);
            object["before"] = text_of(before);
        }
        Event::IdentityConflict { address, instance, .. } => {
            object["address"] = std::net::SocketAddr::from(address).to_string().into();
            object["instance"] = format!("{:016x}", instance.0).into();
        }
        Event::OtherInstance { own, other, address } => {
            object["address"] = std::net::SocketAddr::from(address).to_string().into();
            object["instance"] = format!("{:016x}", own.0).into();
            object["other_instance"] = format!("{:016x}", other.0).into();
        }
        Event::ConfigurationDiffers(_, difference) | Event::Outvoted(_, difference) => {
            let settings = difference
                .settings()
                .map(|(key, here, there)| json!({ "key": key, "here": here.to_string(), "there": there.to_string() }));
            object["differences"] = settings.collect();
        }
        Event::GateDropped(address) => object["address"] = std::net::SocketAddr::from(address).to_string().into(),
        Event::Recovered { instance } | Event::Superseded { instance } => {
            object["instance"] = format!("{:016x}", instance.0).into();
        }
        Event::Removed(epoch) | Event::Left(epoch) => object["epoch"] = epoch.0.into(),
        Event::Settled { delivered, published, .. } => {
            object["delivered"] = delivered.0.into();
            object["published"] = published.0.into();
        }
        Event::Synced { phase, .. } => object["phase"] = phase.into(),
        _ => {}
    }
    object
}

fn text_of(address: Address) -> Value {
    std::net::SocketAddr::from(address).to_string().into()
}

fn add_waiting(object: &mut Value, waiting: &Waiting) {
    object["rank"] = Value::Null;
    object["missing"] = ranks(waiting.missing);
    object["in_lost_instance"] = ranks(waiting.in_lost_instance);
    object["configured_otherwise"] = ranks(waiting.configured_otherwise);
    object["rank_in_use"] = waiting.rank_in_use.is_some().into();
    object["narrow_from"] = ranks(waiting.narrow.from);
    object["narrow_to"] = ranks(waiting.narrow.to);
    object["storage_damaged"] = waiting.storage_damaged.into();
    object["hears_no_other"] = waiting.hears_no_other.into();
    object["majority"] = (!waiting.lacks_majority).into();
    object["waited_ns"] = waiting.waited_ns.into();
}

/// The event as a sentence for people.
pub(crate) fn text(event: Event, left_out: u64) -> String {
    let mut text = event.to_string();
    if left_out > 0 {
        text += &format!(" ({left_out} more reports of it were left out)");
    }
    let waited_ns = match event {
        Event::Waiting(waiting) => Some((waiting.waited_ns, " so far")),
        Event::StorageWaits { waited_ns, .. } => Some((waited_ns, " so far")),
        Event::StorageWorks { waited_ns } => Some((waited_ns, "")),
        _ => None,
    };
    if let Some((waited_ns, so_far)) = waited_ns {
        text += &format!(" ({:.1} s{so_far})", waited_ns as f64 / 1e9);
    }
    text
}

/// Whether an operator should look at it.
pub(crate) fn is_warning(event: &Event) -> bool {
    if let Event::Settled { delivered, published, .. } = event {
        return delivered < published;
    }
    !matches!(
        event,
        Event::View { .. }
            | Event::Trusted(_)
            | Event::Majority
            | Event::Left(_)
            | Event::Synced { .. }
            | Event::NewInstance { .. }
            | Event::Restarted { .. }
            | Event::Reached(_)
            | Event::Recovered { .. }
            | Event::LongDatagramsRestored { .. }
            | Event::Moved { .. }
            | Event::NetworkBack { .. }
            | Event::StorageWorks { .. }
            | Event::Resumed
    )
}

/// As a list of numbers.
fn ranks(ranks: Ranks) -> Value {
    ranks.iter().collect::<Vec<u16>>().into()
}
