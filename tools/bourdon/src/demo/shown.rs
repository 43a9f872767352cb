//! One delivery, and its bytes in a snapshot and a journal.

/// One delivery, as a snapshot and a journal hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shown<'a> {
    pub(crate) view: u64,
    pub(crate) order: Option<u64>,
    pub(crate) publisher: u16,
    pub(crate) sequence: u64,
    /// The message it answers.
    pub(crate) after: Option<(u16, u64)>,
    /// The share that the record belongs to.
    pub(crate) share: u16,
    pub(crate) payload: &'a [u8],
}

/// Words in front of each payload.
pub(super) const HEAD_WORDS: usize = 8;

/// Appends a delivery.
pub(super) fn write(kept: &mut Vec<u8>, shown: &Shown<'_>) {
    let none = u64::MAX;
    let (after_rank, after) = shown.after.map_or((none, none), |(rank, sequence)| (u64::from(rank), sequence));
    let head: [u64; HEAD_WORDS] = [
        shown.payload.len() as u64,
        shown.view,
        shown.order.unwrap_or(none),
        shown.publisher.into(),
        shown.sequence,
        shown.share.into(),
        after_rank,
        after,
    ];
    head.iter().for_each(|word| kept.extend_from_slice(&word.to_le_bytes()));
    kept.extend_from_slice(shown.payload);
}

/// The delivery at the beginning, if it is whole, and what follows it.
pub(super) fn read(bytes: &[u8]) -> Option<(Shown<'_>, &[u8])> {
    let (head, rest) = bytes.split_at_checked(8 * HEAD_WORDS)?;
    let word = |index: usize| {
        let word = head[8 * index..8 * index + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(word)
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(word(0)).ok()?)?;
    let shown = Shown {
        view: word(1),
        order: Some(word(2)).filter(|order| *order != u64::MAX),
        publisher: word(3) as u16,
        sequence: word(4),
        share: word(5) as u16,
        after: (word(6) != u64::MAX).then_some((word(6) as u16, word(7))),
        payload,
    };
    Some((shown, rest))
}
