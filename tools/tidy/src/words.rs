//! Words that may not stand in comments, pages and messages.
//!
//! In concurrent code the reader must see which process does what. A pronoun without an actor hides that: the sentence
//! is about a member, an observer or the application, and the verb is send, deliver or report. Each word here stood for
//! several of these, so it is refused, and the writer names the actor and uses the field's verb
//! (`docs/CONTRIBUTING.md`, "Language").
//!
//! Code is not judged: only comments and the contents of string literals of Rust sources, and the pages.

use crate::source::prose;
use crate::{File, Tree};

/// Words that hide the actor or the verb, each in two parts so that this file has none of them.
const REFUSED: &[(&str, &str)] = &[
    ("wh", "o"),
    ("whoe", "ver"),
    ("wh", "om"),
    ("no", "body"),
    ("some", "body"),
    ("any", "body"),
    ("every", "body"),
    ("some", "one"),
    ("to", "ld"),
    ("te", "lls"),
    ("sa", "ys"),
    ("sa", "id"),
    ("an", "ew"),
];

/// Places that have a refused word.
pub fn refused(tree: &Tree) -> Vec<String> {
    tree.files.iter().filter(|file| file.is_rust() || file.path.ends_with(".md")).flat_map(refused_in).collect()
}

fn refused_in(file: &File) -> Vec<String> {
    let words: Vec<String> = REFUSED.iter().map(|(head, tail)| format!("{head}{tail}")).collect();
    let mut found = Vec::new();
    let prose = if file.is_rust() { prose(&file.text) } else { file.text.clone() };
    for (index, text) in prose.lines().enumerate() {
        for word in text.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-' || c == '`')) {
            if words.iter().any(|refused| word.eq_ignore_ascii_case(refused)) {
                found.push(format!("{}:{} has the word \"{word}\"", file.path, index + 1));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> usize {
        refused_in(&File::new(path, text)).len()
    }

    #[test]
    fn planted_words_are_found_in_comments_messages_and_pages() {
        let word: String = ["some", "body"].concat();
        assert_eq!(found("a/src/b.rs", &format!("/// Asks {word} else.\nfn f() {{}}")), 1);
        assert_eq!(found("a/src/b.rs", &format!("let text = \"asked {word}\";")), 1);
        assert_eq!(found("docs/a.md", &format!("A member asks {word}.")), 1);
        assert_eq!(found("a/src/b.rs", &format!("let {word} = 1; // a member")), 0, "a name is no prose");
        assert_eq!(found("docs/a.md", "A member asks another, whose answer comes late."), 0);
    }
}
