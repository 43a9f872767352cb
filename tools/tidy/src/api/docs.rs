//! Whether every public name of the crate is described, and how many have an example.
//!
//! The compiler demands a comment on public items, but sees neither that one leaves the errors out nor that none shows
//! a call. So each name of the listing is looked up here: an item without a comment, a function that may fail and does
//! not state why, and the share of names and functions with a fenced example. What macros make is left out.

use super::sources::{Crates, Found, Thing};
use super::{CRATE, pretty};
use crate::Tree;
use std::collections::BTreeSet;
use syn::{Attribute, Expr, Fields, ImplItem, Item, Lit, Meta, ReturnType, Signature, TraitItem, Visibility};

/// What the comments of public items lack, and how many have an example.
#[derive(Debug, Default)]
pub struct Documentation {
    /// Items without a comment.
    pub bare: Vec<String>,
    /// Functions that return a `Result` and have no section `# Errors`.
    pub without_errors: Vec<String>,
    /// Types and free functions.
    pub names: Share,
    /// Functions of types, with a comment of their own.
    pub verbs: Share,
}

/// How many of how many have an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// Those with an example; of a type, its own or one at a function.
    pub shown: usize,
    /// All of them.
    pub all: usize,
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.shown, self.all)
    }
}

impl Share {
    fn add(&mut self, is_shown: bool) {
        self.all += 1;
        self.shown += usize::from(is_shown);
    }
}

/// Looks every public name up.
///
/// # Panics
/// As [`listing`](super::listing).
pub fn documentation(tree: &Tree) -> Documentation {
    let crates = Crates::read(tree);
    let (mut result, mut seen) = (Documentation::default(), BTreeSet::new());
    let mut names: Vec<_> = crates.public(CRATE, &[]).into_iter().collect();
    let modules: Vec<_> = names.extract_if(.., |(_, found)| matches!(found.thing, Thing::Module)).collect();
    for (name, found) in modules {
        let path = [found.module, vec![name.clone()]].concat();
        let inside = crates.public(&found.krate, &path).into_iter();
        names.extend(inside.map(|(inner, found)| (format!("{name}::{inner}"), found)));
    }
    for (name, found) in &names {
        if seen.insert((found.krate.clone(), found.module.clone(), found.name.clone())) {
            result.look_at(&crates, name, found);
        }
    }
    result
}

impl Documentation {
    fn look_at(&mut self, crates: &Crates, name: &str, found: &Found<'_>) {
        let Thing::Item(item) = &found.thing else { return };
        let text = self.comment(name, attributes(item));
        let mut is_shown = has_example(&text);
        match item {
            Item::Struct(item) => self.look_at_fields(name, &item.fields, false),
            Item::Enum(item) => {
                for variant in &item.variants {
                    let name = format!("{name}::{}", variant.ident);
                    self.comment(&name, &variant.attrs);
                    if matches!(variant.fields, Fields::Named(_)) {
                        self.look_at_fields(&name, &variant.fields, true);
                    }
                }
            }
            Item::Fn(item) => self.look_at_errors(name, &item.sig, &text),
            Item::Trait(item) => {
                for function in &item.items {
                    let TraitItem::Fn(function) = function else { continue };
                    is_shown |= self.look_at_verb(name, &function.sig, &function.attrs);
                }
            }
            _ => {}
        }
        for implementation in crates.implementations(found).into_iter().filter(|item| item.trait_.is_none()) {
            for function in &implementation.items {
                if let ImplItem::Fn(function) = function
                    && matches!(function.vis, Visibility::Public(_))
                {
                    is_shown |= self.look_at_verb(name, &function.sig, &function.attrs);
                }
            }
        }
        self.names.add(is_shown);
    }

    fn look_at_fields(&mut self, name: &str, fields: &Fields, all: bool) {
        for field in fields.iter().filter(|field| all || matches!(field.vis, Visibility::Public(_))) {
            if let Some(field_name) = &field.ident {
                self.comment(&format!("{name}.{field_name}"), &field.attrs);
            }
        }
    }

    /// Returns whether it has an example.
    fn look_at_verb(&mut self, of: &str, signature: &Signature, attributes: &[Attribute]) -> bool {
        let name = format!("{of}::{}", signature.ident);
        let text = self.comment(&name, attributes);
        self.look_at_errors(&name, signature, &text);
        self.verbs.add(has_example(&text));
        has_example(&text)
    }

    fn look_at_errors(&mut self, name: &str, signature: &Signature, text: &str) {
        let ReturnType::Type(_, kind) = &signature.output else { return };
        if pretty(kind).starts_with("Result<") && !text.lines().any(|line| line.trim() == "# Errors") {
            self.without_errors.push(name.to_owned());
        }
    }

    /// The comment of an item, which is missed if it is empty.
    fn comment(&mut self, name: &str, attributes: &[Attribute]) -> String {
        let line = |attribute: &Attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        let text = attributes.iter().filter_map(line).collect::<Vec<_>>().join("\n");
        if text.trim().is_empty() {
            self.bare.push(name.to_owned());
        }
        text
    }
}

/// Rust is compiled by the doc tests, and settings are read by their own tests; a fence of another kind only shows.
fn has_example(text: &str) -> bool {
    let fences = text.lines().filter_map(|line| line.trim().strip_prefix("```"));
    fences.step_by(2).any(|language| !["text", "sh", "console"].contains(&language))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::File;

    #[test]
    fn what_comments_lack_is_found() {
        let text = "
            /// A handle.
            ///
            /// ```
            /// shown();
            /// ```
            pub struct Shown { pub bare: u8, own: u8 }
            impl Shown {
                /// Fails.
                pub fn fails(&self) -> Result<(), ()> {}
                /// Fails.
                ///
                /// # Errors
                /// When it does.
                pub fn described(&self) -> Result<(), ()> {}
                fn own(&self) -> Result<(), ()> {}
            }
            pub enum Bare {
                /// A variant.
                ///
                /// ```text
                /// a = 1
                /// ```
                A,
                B,
            }
            /// A trait.
            pub trait Does {
                /// Does.
                ///
                /// ```no_run
                /// does();
                /// ```
                fn does(&self);
            }
        ";
        let files = vec![File::new("engine/node/src/lib.rs", text)];
        let found = documentation(&Tree { files, ..Tree::default() });
        assert_eq!(found.bare, ["Bare", "Bare::B", "Shown.bare"]);
        assert_eq!(found.without_errors, ["Shown::fails"]);
        assert_eq!((found.names.to_string(), found.verbs.to_string()), ("2 of 3".into(), "1 of 3".into()));
    }
}
