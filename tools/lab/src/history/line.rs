//! One line of a history.
//!
//! A line is tab-separated and its first field gives its kind; the format is that of `--history` of the `bourdon`
//! command. Missing fields, extra fields and invalid numbers are errors: a judge that guesses misses violations.

use std::str::Split;

/// The contents of a line, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Deliver {
        view: u64,
        order: Option<u64>,
        publisher: &'a str,
        sequence: u64,
        after: Option<(&'a str, u64)>,
        hash: u64,
    },
    View {
        number: u64,
        members: &'a str,
    },
    /// The instance of the group that the following views belong to.
    Instance(u64),
    Barrier(u64),
    State {
        count: u64,
        sum: u64,
    },
    Gap {
        publisher: &'a str,
        from: u64,
        to: u64,
    },
    Retract {
        publisher: &'a str,
        sequence: u64,
    },
}

/// Reads a line without its end.
pub(super) fn parse(text: &str) -> Result<Line<'_>, String> {
    let mut fields = Fields { rest: text.split('\t') };
    let line = match fields.text("kind")? {
        "D" => Line::Deliver {
            view: fields.number("view")?,
            order: fields.order()?,
            publisher: fields.text("publisher")?,
            sequence: fields.number("seq")?,
            after: fields.after()?,
            hash: fields.hash()?,
        },
        "V" => Line::View { number: fields.number("view")?, members: fields.text("members")? },
        "I" => Line::Instance(fields.instance()?),
        "B" => Line::Barrier(fields.number("n")?),
        "S" => Line::State { count: fields.number("count")?, sum: fields.hash()? },
        "G" => fields.gap()?,
        "R" => Line::Retract { publisher: fields.text("publisher")?, sequence: fields.number("seq")? },
        other => return Err(format!("a line begins with D, V, I, B, S, G or R, not {other:?}")),
    };
    match fields.rest.next() {
        None => Ok(line),
        Some(extra) => Err(format!("{extra:?} is one field too many")),
    }
}

struct Fields<'a> {
    rest: Split<'a, char>,
}

impl<'a> Fields<'a> {
    fn text(&mut self, what: &str) -> Result<&'a str, String> {
        self.rest.next().filter(|field| !field.is_empty()).ok_or_else(|| format!("the field {what} is missing"))
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let field = self.text(what)?;
        field.parse().map_err(|_| format!("{what} is a number, not {field:?}"))
    }

    fn instance(&mut self) -> Result<u64, String> {
        let field = self.text("instance")?;
        let is_one = field.len() == 16;
        let number = u64::from_str_radix(field, 16).ok().filter(|_| is_one);
        number.ok_or_else(|| format!("instance is 16 hexadecimal digits, not {field:?}"))
    }

    fn order(&mut self) -> Result<Option<u64>, String> {
        match self.text("order")? {
            "-" => Ok(None),
            field => field.parse().map(Some).map_err(|_| format!("order is a number or -, not {field:?}")),
        }
    }

    fn after(&mut self) -> Result<Option<(&'a str, u64)>, String> {
        let field = self.text("after")?;
        if field == "-" {
            return Ok(None);
        }
        let named = field.rsplit_once(':').and_then(|(publisher, sequence)| Some((publisher, sequence.parse().ok()?)));
        named.map(Some).ok_or_else(|| format!("after is publisher:seq or -, not {field:?}"))
    }

    fn hash(&mut self) -> Result<u64, String> {
        let field = self.text("hash")?;
        let hash = (field.len() == 16).then(|| u64::from_str_radix(field, 16).ok()).flatten();
        hash.ok_or_else(|| format!("hash is 16 hex digits, not {field:?}"))
    }

    fn gap(&mut self) -> Result<Line<'a>, String> {
        let (publisher, from, to) = (self.text("publisher")?, self.number("from")?, self.number("to")?);
        if from >= to {
            return Err(format!("a gap from {from} to before {to} holds nothing"));
        }
        Ok(Line::Gap { publisher, from, to })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let deliver = parse("D\t3\t17\t0\t5\t1:4\t00000000000000ff");
        let expected =
            Line::Deliver { view: 3, order: Some(17), publisher: "0", sequence: 5, after: Some(("1", 4)), hash: 255 };
        assert_eq!(deliver, Ok(expected));
        assert_eq!(parse("V\t2\t1,0"), Ok(Line::View { number: 2, members: "1,0" }));
        assert_eq!(parse("B\t9"), Ok(Line::Barrier(9)));
        assert_eq!(parse("G\t0\t3\t7"), Ok(Line::Gap { publisher: "0", from: 3, to: 7 }));
        assert_eq!(parse("R\tclient:7\t3"), Ok(Line::Retract { publisher: "client:7", sequence: 3 }));
        let named = parse("D\t1\t-\tc:7\t0\tmember:1:4\tabcdefabcdefabcd");
        assert!(matches!(named, Ok(Line::Deliver { order: None, after: Some(("member:1", 4)), .. })), "{named:?}");
    }

    #[test]
    fn what_is_no_line_is_refused() {
        for text in [
            "",
            "X\t1",
            "B",
            "B\tone",
            "B\t1\t2",
            "V\t1",
            "G\t0\t7\t7",
            "D\t1\t-\t0\t0\t-",
            "D\t1\t-\t0\t0\t-\tff",
            "D\t1\t\t0\t0\t-\t00000000000000ff",
            "D\t1\t-\t0\t0\t4\t00000000000000ff",
            "D\t-1\t-\t0\t0\t-\t00000000000000ff",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
