//! Which process publishes which records.
//!
//! Record i belongs to share i mod P, and share p belongs to member p. When an owner leaves the view, the lowest member
//! of the new view continues its share, from the first record that has not been delivered. All processes install the
//! same views between the same deliveries, so all know the same owners, and no record is published twice.
//!
//! A message's topic gives the share it belongs to; in the workload of replies every eighth message of a publisher
//! names the message that the publisher delivered last, in front of the record.

use super::input::Record;
use super::schedule::Schedule;
use bourdon::id::TopicId;

/// Set in the topic of a message that names another message.
const REPLY: u16 = 0x8000;
/// Bytes of that name: rank and sequence.
const NAME_BYTES: usize = 10;
/// One message in this many is a reply.
const REPLY_EVERY: u64 = 8;

/// The owner of each share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owners(pub(crate) Vec<u16>);

impl Owners {
    pub(crate) fn new(publishers: u16) -> Self {
        Self((0..publishers).collect())
    }

    /// A view was installed: shares whose owner is not in it go to its lowest member.
    pub(crate) fn view(&mut self, members: u64) {
        let lowest = members.trailing_zeros() as u16;
        for owner in self.0.iter_mut().filter(|owner| members >> **owner & 1 == 0) {
            *owner = lowest;
        }
    }
}

/// All records, and how far each share this process owns has been published.
pub(crate) struct Shares {
    records: Vec<Record>,
    pub(crate) schedule: Schedule,
    publishers: u16,
    /// For each share, how many of its records this process has published or need not publish.
    next: Vec<Option<u64>>,
    /// When the next record was first tried, at full speed.
    pub(crate) first_try_ns: Option<u64>,
}

/// The next record to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Next {
    pub(crate) share: u16,
    /// Its index among all records.
    pub(crate) index: usize,
}

impl Shares {
    pub(crate) fn new(records: Vec<Record>, schedule: Schedule, publishers: u16) -> Self {
        let next = vec![None; usize::from(publishers)];
        Self { records, schedule, publishers, next, first_try_ns: None }
    }

    /// Adopts the shares that this process now owns, a new share from the next undelivered record; drops the others.
    pub(crate) fn own(&mut self, owners: &Owners, rank: u16, done: &[u64]) {
        for (share, next) in self.next.iter_mut().enumerate() {
            *next = (owners.0[share] == rank).then(|| next.unwrap_or(done[share]));
        }
    }

    /// Publishes nothing more.
    pub(crate) fn let_go(&mut self) {
        self.next.fill(None);
    }

    /// The earliest record of this process that is not published.
    pub(crate) fn next(&self) -> Option<Next> {
        let step = usize::from(self.publishers);
        let places = self.next.iter().enumerate().filter_map(|(share, next)| {
            let index = share + usize::try_from((*next)?).ok()? * step;
            (index < self.records.len()).then_some(Next { share: share as u16, index })
        });
        places.min_by_key(|next| next.index)
    }

    /// The topic and payload for a record. `last` is the message delivered last, in the workload of replies.
    pub(crate) fn message(&self, next: Next, count: u64, last: Option<(u16, u64)>) -> (TopicId, Vec<u8>) {
        let payload = &self.records[next.index].payload;
        match last.filter(|_| count % REPLY_EVERY == REPLY_EVERY - 1) {
            Some((rank, sequence)) => {
                let bytes = [&rank.to_le_bytes()[..], &sequence.to_le_bytes(), payload].concat();
                (TopicId(next.share | REPLY), bytes)
            }
            None => (TopicId(next.share), payload.to_vec()),
        }
    }

    /// Marks the record as published.
    pub(crate) fn published(&mut self, next: Next) {
        if let Some(Some(count)) = self.next.get_mut(usize::from(next.share)) {
            *count += 1;
        }
        self.first_try_ns = None;
    }
}

/// The contents of a message: its share, the message it answers, and the record.
pub(crate) fn read(topic: TopicId, payload: &[u8]) -> (u16, Option<(u16, u64)>, &[u8]) {
    let share = topic.0 & !REPLY;
    if topic.0 & REPLY == 0 || payload.len() < NAME_BYTES {
        return (share, None, payload);
    }
    let (name, record) = payload.split_at(NAME_BYTES);
    let rank = u16::from_le_bytes([name[0], name[1]]);
    let sequence = u64::from_le_bytes(name[2..].try_into().expect("ten bytes less two"));
    (share, Some((rank, sequence)), record)
}

#[cfg(test)]
mod tests {
    use super::super::schedule::Rate;
    use super::*;

    fn shares(count: usize, publishers: u16) -> Shares {
        let record = |i: usize| Record { payload: Box::new([i as u8]), at_ns: 0, snapshot: false };
        let records: Vec<_> = (0..count).map(record).collect();
        let schedule = Schedule::new(&records, Rate::Max, 0);
        Shares::new(records, schedule, publishers)
    }

    fn publish_all(shares: &mut Shares) -> Vec<usize> {
        std::iter::from_fn(|| {
            let next = shares.next()?;
            shares.published(next);
            Some(next.index)
        })
        .collect()
    }

    #[test]
    fn the_lowest_member_goes_on_where_delivery_stands() {
        let (mut owners, mut shares) = (Owners::new(3), shares(10, 3));
        shares.own(&owners, 1, &[0; 3]);
        assert_eq!(publish_all(&mut shares), [1, 4, 7]);
        owners.view(0b110);
        assert_eq!(owners.0, [1, 1, 2]);
        shares.own(&owners, 1, &[2, 3, 1]);
        assert_eq!(publish_all(&mut shares), [6, 9], "its own share continues at the same record");
        owners.view(0b101);
        assert_eq!(owners.0, [0, 0, 2], "a member that came back may get them again");
        shares.own(&owners, 1, &[4, 3, 1]);
        assert_eq!(publish_all(&mut shares), [0usize; 0]);
    }

    #[test]
    fn a_reply_names_what_it_answers_in_front_of_its_record() {
        let shares = shares(4, 2);
        let next = Next { share: 1, index: 3 };
        let (topic, payload) = shares.message(next, 7, Some((5, 77)));
        assert_eq!(read(topic, &payload), (1, Some((5, 77)), &[3][..]));
        let (topic, payload) = shares.message(next, 6, Some((5, 77)));
        assert_eq!(read(topic, &payload), (1, None, &[3][..]));
    }
}
