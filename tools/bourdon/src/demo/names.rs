//! The names of the deliveries in a history, for a process that was killed before it could report them.

/// The names of the deliveries in a history, in order; a last line that was cut off does not count.
pub(crate) fn names(text: &str) -> impl Iterator<Item = (u16, u64)> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let is_delivery = fields.next()? == "D";
        let publisher = fields.nth(2)?.parse().ok()?;
        let sequence = fields.next()?.parse().ok()?;
        is_delivery.then_some((publisher, sequence))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_a_cut_line_is_none() {
        let text = "V\t4\t2,0\nD\t4\t9\t2\t7\t0:5\tba7816bf8f01cfea\nD\t4\t-\t2\t8\t-\tba7816bf8f01cfea\nB\t1\n";
        assert_eq!(names(text).collect::<Vec<_>>(), [(2, 7), (2, 8)]);
        assert_eq!(names(&text[..text.len() - 8]).count(), 1);
    }
}
