//! A map that is the same at every member, through the end of one and its return.
//!
//! All members apply the same commands in the same order, so their maps are equal. A member that joins later gets the
//! map of another one as it was at one place among the commands ([`Delivery::SnapshotRequest`]), and goes on from
//! there. At [`Reliability::Uniform`] no member applies a command that a crash of others could still undo.

use bourdon::settings::Reliability;
use bourdon::{Delivery, Node, NodeBuilder, Publication, Subscribe, Subscription, Topic};
use std::collections::BTreeMap;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A member with its copy of the map.
struct Member {
    rank: u16,
    map: BTreeMap<String, String>,
    commands: Publication,
    subscription: Subscription,
    _node: Node, // dropped last
}

impl Member {
    fn join(group: &NodeBuilder, rank: u16) -> Result<Self> {
        let node = group.clone().rank(rank).open()?;
        let (commands, subscription) = (node.publication()?, node.subscribe(Subscribe::all().snapshots())?);
        node.join()?;
        Ok(Self { rank, map: BTreeMap::new(), commands, subscription, _node: node })
    }

    /// Publishes a command. This member's own map changes when the command is delivered, as every other.
    fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let command = format!("{key}={value}");
        self.commands.publish(&Topic::new("set")?, command.as_bytes(), Duration::from_secs(10))?;
        Ok(())
    }

    /// Applies what comes within a millisecond.
    fn follow(&mut self) -> Result<()> {
        match self.subscription.next(Duration::from_millis(1))? {
            Some(Delivery::Message(command)) => self.map.extend(entries(command.payload)),
            Some(Delivery::SnapshotRequest(request)) => {
                let lines: Vec<_> = self.map.iter().map(|(key, value)| format!("{key}={value}")).collect();
                request.give(lines.join("\n").as_bytes())?; // the map at this place among the commands
            }
            Some(Delivery::Snapshot(snapshot)) => self.map = entries(snapshot.bytes()).collect(),
            Some(other) => println!("member {}: {other}", self.rank),
            None => {}
        }
        Ok(())
    }
}

/// The entries of a text, one in each line.
fn entries(text: &[u8]) -> impl Iterator<Item = (String, String)> {
    let lines = std::str::from_utf8(text).unwrap_or_default().lines();
    lines.filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// Lets all members follow until each has this key.
fn follow_until(members: &mut [Member], key: &str) -> Result<()> {
    while !members.iter().all(|member| member.map.contains_key(key)) {
        members.iter_mut().try_for_each(Member::follow)?;
    }
    members.iter().for_each(|member| println!("member {}: {:?}", member.rank, member.map));
    Ok(())
}

fn main() -> Result<()> {
    let group = Node::builder().group("replicated-map").members(3).reliability(Reliability::Uniform);
    let mut members = (0..3).map(|rank| Member::join(&group, rank)).collect::<Result<Vec<_>>>()?;
    members[0].set("es", "4750.25")?;
    follow_until(&mut members, "es")?;

    drop(members.pop());
    members[1].set("nq", "16800.50")?;
    follow_until(&mut members, "nq")?;

    members.push(Member::join(&group, 2)?); // it begins with the map of another member
    members[0].set("ym", "37900")?;
    follow_until(&mut members, "ym")?;
    assert!(members.iter().all(|member| member.map == members[0].map));
    Ok(())
}
