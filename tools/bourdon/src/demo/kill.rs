//! Which processes of a demo are to die, and when.

use bourdon::settings::Role;
use std::str::FromStr;

/// The process or processes to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    One(Role, u16),
    /// All members and observers at once.
    All,
}

/// A process that is to kill itself, and at [`Victim::All`] all others with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) victim: Victim,
    /// It kills itself once it has delivered this many messages.
    pub(crate) at: u64,
}

impl Kill {
    /// Whether this process may be the one that kills itself.
    pub(crate) fn concerns(&self, role: Role, rank: u16) -> bool {
        self.victim == Victim::All || self.victim == Victim::One(role, rank)
    }
}

impl FromStr for Kill {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let help = || format!("{text:?} is not like member:0@20000, observer:1@500 or all@9000");
        let (victim, at) = text.split_once('@').ok_or_else(help)?;
        let victim = match victim.split_once(':') {
            Some(("member", rank)) => Victim::One(Role::Member, rank.parse().map_err(|_| help())?),
            Some(("observer", rank)) => Victim::One(Role::Observer, rank.parse().map_err(|_| help())?),
            None if victim == "all" => Victim::All,
            _ => return Err(help()),
        };
        match at.parse().map_err(|_| help())? {
            0 => Err("a process can be killed from its first message on: use @1".into()),
            at => Ok(Self { victim, at }),
        }
    }
}

/// Checks that each process to be killed exists, is named once, and can deliver as many messages.
pub(crate) fn check(kills: &[Kill], members: u16, observers: u16, messages: u64) -> Result<(), String> {
    for (index, kill) in kills.iter().enumerate() {
        let name = match kill.victim {
            Victim::One(role, rank) => name_of(role, rank),
            Victim::All => "all".to_owned(),
        };
        if kill.at > messages {
            return Err(format!(
                "{name} can't be killed at message {}: there are {messages} messages; give a lower number after the @",
                kill.at
            ));
        }
        if let Victim::One(role, rank) = kill.victim
            && rank >= if role == Role::Member { members } else { observers }
        {
            return Err(format!("there is no {name} to kill: there are {members} members and {observers} observers"));
        }
        let is_same = |other: &&Kill| other.victim == kill.victim;
        match kills[..index].iter().find(is_same) {
            Some(other) if kill.victim == Victim::All && other.at != kill.at => {}
            Some(_) => return Err(format!("{name} can be killed only once")),
            None => {}
        }
    }
    Ok(())
}

pub(crate) fn name_of(role: Role, rank: u16) -> String {
    let role = if role == Role::Member { "member" } else { "observer" };
    format!("{role}:{rank}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_read_or_refused() {
        let kill = Kill { victim: Victim::One(Role::Observer, 2), at: 50 };
        assert_eq!("observer:2@50".parse(), Ok(kill));
        assert_eq!("all@7".parse(), Ok(Kill { victim: Victim::All, at: 7 }));
        for bad in ["", "member:0", "member@5", "client:0@5", "member:x@5", "member:0@0", "member:0@-1", "all:0@5"] {
            assert!(bad.parse::<Kill>().is_err(), "{bad}");
        }
        assert!(check(&[kill], 3, 3, 50).is_ok());
        assert!(check(&[kill], 3, 2, 50).is_err());
        assert!(check(&[kill], 3, 3, 49).is_err_and(|why| why.contains("there are 49 messages")));
        assert!(check(&[kill, Kill { at: 40, ..kill }], 3, 3, 50).is_err());
        let all = Kill { victim: Victim::All, at: 9 };
        assert!(check(&[all, kill, Kill { at: 10, ..all }], 3, 3, 50).is_ok());
        assert!(check(&[all, all], 3, 3, 50).is_err());
    }
}
