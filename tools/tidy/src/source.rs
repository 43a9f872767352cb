//! Rust text without comments and the contents of literals.
//!
//! A sentence about `unsafe` must not trigger a rule that looks for `unsafe`. A whole parser would be slow to build and
//! would not keep lines; the rules need only the few places where Rust switches between code and text.
//!
//! Invariant: line breaks stay where they are, so that line numbers are the file's own.

/// The code in a Rust text: comments and the contents of literals become blanks, line for line.
pub fn code(text: &str) -> String {
    parts(text).0
}

/// The rest of a Rust text: its comments and literals, line for line.
pub(crate) fn prose(text: &str) -> String {
    parts(text).1
}

fn parts(text: &str) -> (String, String) {
    let (mut code, mut prose) = (String::with_capacity(text.len()), String::new());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = code.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let (skipped, keep) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), ""),
            '/' if rest.starts_with("/*") => (block_comment(rest), ""),
            '"' => (string(rest), "\"\""),
            'r' if !in_word && raw_string(rest).is_some() => (raw_string(rest).unwrap_or(1), "\"\""),
            '\'' if character(rest).is_some() => (character(rest).unwrap_or(1), "' '"),
            _ => {
                code.push(first);
                prose.push(if first == '\n' { first } else { ' ' });
                rest = &rest[first.len_utf8()..];
                continue;
            }
        };
        code.push_str(keep);
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        prose.push_str(&rest[..skipped]);
        rest = &rest[skipped..];
    }
    (code, prose)
}

/// Length of the block comment in front; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        match &text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Length of the string literal in front.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'"' if !escaped => return index + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// Length of the raw string literal in front, if it is one.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| 2 + hashes + at + end.len()))
}

/// Length of the character literal in front; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    if chars.next()?.1 == '\\' {
        chars.next()?; // whatever is escaped, a quote too
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::{code, prose};

    #[test]
    fn comments_and_literals_are_kept_alone() {
        assert_eq!(prose("f('a'); // b\ng(\"c\")").replace(' ', ""), "'a'//b\n\"c\"");
    }

    #[test]
    fn text_is_left_out_and_lines_stay() {
        let text = "//! unsafe\nlet a = \"un\\\"safe\nx\"; /* un /* sa */ fe */ let b: &'a str = r#\"x\"y\"#;\nlet c \
             = '\"'; let d = '\\''; for_r\"z\"";
        let code = code(text);
        assert_eq!(code, "\nlet a = \"\"\n;  let b: &'a str = \"\";\nlet c = ' '; let d = ' '; for_r\"\"");
    }
}
