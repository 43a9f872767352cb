//! Elects a leader, and a new one once the leader is gone. What a leader does carries its token: storage that refuses
//! a token lower than the highest it has seen is safe from a leader that was replaced.

use bourdon::{Election, Node};
use std::error::Error;
use std::time::Duration;

/// Waits until the election has a leader, or another one than this rank.
fn leader(election: &mut Election, other_than: Option<u16>) -> Result<u16, Box<dyn Error>> {
    loop {
        let state = election.next(Duration::from_secs(10))?.ok_or("there is no leader within 10 s")?;
        match state.leader {
            Some(leader) if Some(leader.0) != other_than => {
                let token = state.token.map(|token| token.to_string()).unwrap_or_default();
                println!("member {leader} leads{} under {token}", if state.own { ", which is this one," } else { "" });
                return Ok(leader.0);
            }
            _ => println!("there is no leader: {state}"),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let group = Node::builder().group("election").members(3);
    let mut nodes = Vec::new();
    for rank in 0..3 {
        nodes.push(Some(group.clone().rank(rank).join()?));
    }
    let mut elections = Vec::new();
    for node in nodes.iter().flatten() {
        let mut election = node.election("writer")?;
        election.campaign()?;
        elections.push(election);
    }
    let first = leader(&mut elections[0], None)?;
    drop(nodes[usize::from(first)].take()); // its candidacy ends with it
    let watcher = usize::from(first == 0);
    let second = leader(&mut elections[watcher], Some(first))?;
    println!("after member {first} came member {second}");
    Ok(())
}
