//! The public API of crate `bourdon`, as a listing that is kept in the tree.
//!
//! A name becomes public by one word in one file, and stays for years. In a listing of all names each change of them is
//! a line that a reviewer reads. Rustdoc writes such a listing on nightly toolchains only, so this one is made from the
//! sources: the modules of the crate and of those that it re-exports from are parsed, and every public name is followed
//! to its definition ([`sources`]).
//!
//! What it lists of each type: variants, public fields, the traits that it derives or implements by hand, and the
//! signatures of its public methods. Methods that stand in a macro are listed by name, where the macro is called in its
//! own file and makes the type or begins with its name. It does not expand other macros, and does not know blanket
//! implementations.

mod docs;
mod sources;

pub use docs::{Documentation, Share, documentation};

use crate::Tree;
use quote::ToTokens;
use sources::{Crates, Found, Thing};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use syn::{Attribute, Fields, ImplItem, Item, TraitItem, Visibility};

/// Where the listing is kept.
pub const LISTING: &str = "engine/node/api.txt";

/// The crate that is listed, as its users name it.
const CRATE: &str = "bourdon";

/// What a listing is for, and how it is written again.
const HEADER: &str = "\
# The public API of crate `bourdon`, checked by `cargo test -p bourdon-tidy`.
# After a change: BOURDON_RENEW_API=1 cargo test -p bourdon-tidy public_api
";

/// How much is public.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Names at the top level, modules left out.
    pub names: usize,
    /// Public modules.
    pub modules: usize,
    /// Names in public modules.
    pub names_in_modules: usize,
    /// Public functions and methods, of names that are listed once.
    pub verbs: usize,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { names, modules, names_in_modules, verbs } = self;
        write!(f, "{names} names at the top level, {modules} modules with {names_in_modules} names, {verbs} verbs")
    }
}

/// The listing, and how much it lists.
///
/// # Panics
/// If a source of the crate can't be parsed, or a public name has no definition in it.
pub fn listing(tree: &Tree) -> (String, Counts) {
    let crates = Crates::read(tree);
    let (mut counts, mut body) = (Counts::default(), String::new());
    let top = crates.public(CRATE, &[]);
    let (modules, names): (BTreeMap<_, _>, BTreeMap<_, _>) =
        top.iter().partition(|(_, found)| matches!(found.thing, Thing::Module));
    let mut listed = BTreeSet::new();
    counts.names = names.len();
    for (name, found) in names {
        list(&crates, name, found, &mut listed, &mut counts, &mut body);
    }
    counts.modules = modules.len();
    for (name, found) in modules {
        let mut path = found.module.clone();
        path.push(name.clone());
        let inside = crates.public(&found.krate, &path);
        counts.names_in_modules += inside.len();
        let _ = writeln!(body, "\n## mod {name}");
        for (name, found) in &inside {
            list(&crates, name, found, &mut listed, &mut counts, &mut body);
        }
    }
    (format!("{HEADER}# {counts}.\n{body}"), counts)
}

/// Lists a name and what its type offers; of a type with several names, under the first.
fn list(
    crates: &Crates,
    name: &str,
    found: &Found<'_>,
    listed: &mut BTreeSet<(String, Vec<String>, String)>,
    counts: &mut Counts,
    body: &mut String,
) {
    let place = (found.krate.clone(), found.module.clone(), found.name.clone());
    let _ = write!(body, "\n{} {name}", kind(found));
    if !listed.insert(place) {
        body.push_str(" (above)");
        return body.push('\n');
    }
    let shape = shape(found);
    let _ = writeln!(body, "{shape}");
    let (mut traits, mut verbs) = (derived(found), Vec::new());
    for implementation in crates.implementations(found) {
        match &implementation.trait_ {
            Some((_, path, _)) => traits.extend(path.segments.last().map(|last| last.ident.to_string())),
            None => verbs.extend(implementation.items.iter().filter_map(method)),
        }
    }
    verbs.extend(verbs_of(found));
    verbs.extend(crates.given_by_macros(found));
    if !traits.is_empty() {
        let traits: Vec<_> = traits.into_iter().collect();
        let _ = writeln!(body, "    is {}", traits.join(", "));
    }
    counts.verbs += verbs.iter().filter(|verb| verb.contains("fn ")).count();
    for verb in verbs {
        let _ = writeln!(body, "    {verb}");
    }
}

fn kind(found: &Found<'_>) -> String {
    match &found.thing {
        Thing::Module => "mod".to_owned(),
        Thing::Macro { of, .. } => format!("{of}!"),
        Thing::Item(item) => match item {
            Item::Struct(_) => "struct",
            Item::Enum(_) => "enum",
            Item::Trait(_) => "trait",
            Item::Fn(_) => "fn",
            Item::Const(_) => "const",
            Item::Static(_) => "static",
            Item::Type(_) => "type",
            _ => "item",
        }
        .to_owned(),
    }
}

/// Whether matches and literals in other crates must leave room for more.
fn grows(attributes: &[Attribute]) -> &'static str {
    let is_it = |attribute: &Attribute| attribute.path().is_ident("non_exhaustive");
    if attributes.iter().any(is_it) { " .." } else { "" }
}

/// A type's variants or public fields, a function's signature, a constant's type.
fn shape(found: &Found<'_>) -> String {
    let Thing::Item(item) = &found.thing else { return String::new() };
    match item {
        Item::Struct(item) => {
            let fields = fields(&item.fields, false);
            let list = if fields.is_empty() { String::new() } else { format!(" {{ {fields} }}") };
            format!("{}{list}{}", pretty(&item.generics), grows(&item.attrs))
        }
        Item::Enum(item) => {
            let variants = item.variants.iter().map(|variant| {
                let fields = fields(&variant.fields, true);
                let list = match &variant.fields {
                    Fields::Unit => String::new(),
                    Fields::Unnamed(_) => format!("({fields})"),
                    Fields::Named(_) => format!(" {{ {fields} }}"),
                };
                format!("\n    | {}{list}", variant.ident)
            });
            format!("{}{}{}", pretty(&item.generics), grows(&item.attrs), variants.collect::<String>())
        }
        Item::Trait(item) => pretty(&item.generics),
        Item::Const(item) => format!(": {}", pretty(&item.ty)),
        Item::Static(item) => format!(": {}", pretty(&item.ty)),
        Item::Type(item) => format!("{} = {}", pretty(&item.generics), pretty(&item.ty)),
        _ => String::new(),
    }
}

fn fields(fields: &Fields, all: bool) -> String {
    let shown = fields.iter().filter(|field| all || matches!(field.vis, Visibility::Public(_)));
    let text = shown.map(|field| match &field.ident {
        Some(name) => format!("{name}: {}", pretty(&field.ty)),
        None => pretty(&field.ty),
    });
    text.collect::<Vec<_>>().join(", ")
}

fn derived(found: &Found<'_>) -> BTreeSet<String> {
    let attributes = match &found.thing {
        Thing::Item(Item::Struct(item)) => &item.attrs,
        Thing::Item(Item::Enum(item)) => &item.attrs,
        _ => return BTreeSet::new(),
    };
    let mut traits = BTreeSet::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
        let _ = attribute.parse_nested_meta(|meta| {
            traits.extend(meta.path.segments.last().map(|last| last.ident.to_string()));
            Ok(())
        });
    }
    traits
}

fn method(item: &ImplItem) -> Option<String> {
    match item {
        ImplItem::Fn(function) if matches!(function.vis, Visibility::Public(_)) => Some(pretty(&function.sig)),
        ImplItem::Const(constant) if matches!(constant.vis, Visibility::Public(_)) => {
            Some(format!("const {}: {}", constant.ident, pretty(&constant.ty)))
        }
        _ => None,
    }
}

/// What stands in the definition itself.
fn verbs_of(found: &Found<'_>) -> Vec<String> {
    match &found.thing {
        Thing::Macro { verbs, .. } => verbs.clone(),
        Thing::Item(Item::Fn(item)) => vec![pretty(&item.sig)],
        Thing::Item(Item::Trait(item)) => {
            let signature = |item: &TraitItem| match item {
                TraitItem::Fn(function) => Some(pretty(&function.sig)),
                _ => None,
            };
            item.items.iter().filter_map(signature).collect()
        }
        _ => Vec::new(),
    }
}

/// Tokens as a person writes them, on one line.
fn pretty(tokens: &impl ToTokens) -> String {
    const SPACES: &[(&str, &str)] = &[
        (" :: ", "::"),
        (":: ", "::"),
        (" ::", "::"),
        (" < ", "<"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("> (", ">("),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" ,", ","),
        (" :", ":"),
        ("& ", "&"),
        ("[ ", "["),
        (" ]", "]"),
        (" ;", ";"),
        (",)", ")"),
        ("& mut", "&mut"),
        ("- >", "->"),
        ("->(", "-> ("),
        (",(", ", ("),
        ("=(", "= ("),
        (", >", ">"),
        (",>", ">"),
    ];
    let mut text = tokens.to_token_stream().to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    for (from, to) in SPACES {
        text = text.replace(from, to);
    }
    text.replace("->", " -> ").replace("  ", " ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::File;

    /// A tree of these files below the crate's sources, or below those of the crate that it re-exports from.
    fn planted(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| File::new(&format!("engine/{path}"), text));
        Tree { files: files.collect(), ..Tree::default() }
    }

    #[test]
    fn names_are_followed_to_their_definitions() {
        let tree = planted(&[
            (
                "node/src/lib.rs",
                "mod a; pub mod sets { pub use crate::a::b::*; } pub use a::Port; pub use \
                                 bourdon_wire::{Rank, Kind as Sort}; mod hidden; use hidden::X;",
            ),
            (
                "node/src/a.rs",
                "pub mod b; pub struct Port<P> { pub name: String, own: P } impl<P> Port<P> { pub fn \
                               open(&mut self, on: impl FnMut(&[u8])) -> Result<Vec<u8>, ()> { } fn own() {} }",
            ),
            (
                "node/src/a/b.rs",
                "#[non_exhaustive] #[derive(Clone)] pub enum Mode { On, Off(u8) } pub(crate) fn f() {} \
                                 #[cfg(test)] mod tests;",
            ),
            ("node/src/hidden.rs", "pub struct X;"),
            (
                "wire/src/lib.rs",
                "macro_rules! id { ($name:ident) => { impl $name { pub const fn next(self) -> Self { \
                                 self } } } } id!(Rank); mod k; pub use k::Kind;",
            ),
            (
                "wire/src/k.rs",
                "pub struct Kind(pub u8); impl std::fmt::Display for Kind { } macro_rules! named { ($kind:ident) => { \
                 impl $kind { pub fn name(self) {} } } } named!(Kind); named!(Other);",
            ),
        ]);
        let (text, counts) = listing(&tree);
        let counts_ = Counts { names: 3, modules: 1, names_in_modules: 1, verbs: 3 };
        assert_eq!(counts, counts_, "{text}");
        for line in [
            "struct Port<P> { name: String }",
            "    fn open(&mut self, on: impl FnMut(&[u8])) -> Result<Vec<u8>, ()>",
            "struct Sort { u8 }",
            "    is Display",
            "    fn name",
            "id! Rank",
            "    fn next",
            "## mod sets",
            "enum Mode ..",
            "    | Off(u8)",
            "    is Clone",
        ] {
            assert!(text.lines().any(|is| is == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("own") && !text.contains("struct X"), "{text}");
    }
}
