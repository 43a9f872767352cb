//! The modules of crates, parsed, and where a name in them is defined.
//!
//! A crate is a tree of modules, each with its items. A name of a module is an item in it, a module below it, or a name
//! that a `use` brings in from elsewhere, perhaps by `*`: then it is looked for there.
//!
//! Bound: a name is followed through [`STEPS_MAX`] uses, so that two modules that import each other end the search.

use crate::Tree;
use proc_macro2::{TokenStream, TokenTree};
use std::collections::BTreeMap;
use syn::{Attribute, Item, ItemImpl, ItemMacro, Type, UseTree, Visibility};

/// The crates that are parsed, as Rust names them, and where their sources are.
const CRATES: &[(&str, &str)] = &[
    ("bourdon", "engine/node/src"),
    ("bourdon_port", "transports/port/src"),
    ("bourdon_archive", "engine/archive/src"),
    ("bourdon_engine", "engine/engine/src"),
    ("bourdon_protocol", "engine/protocol/src"),
    ("bourdon_ring", "engine/ring/src"),
    ("bourdon_wire", "engine/wire/src"),
];

/// Through how many uses a name is followed.
const STEPS_MAX: usize = 8;

/// A module.
#[derive(Default)]
struct Module {
    items: Vec<Item>,
    children: BTreeMap<String, Module>,
}

/// What a name stands for.
pub(super) enum Thing<'a> {
    Item(&'a Item),
    Module,
    /// What a macro of the module makes, with the functions that stand in the macro.
    Macro {
        of: String,
        verbs: Vec<String>,
    },
}

/// A name's definition, and where it is.
pub(super) struct Found<'a> {
    pub(super) krate: String,
    pub(super) module: Vec<String>,
    pub(super) name: String,
    pub(super) thing: Thing<'a>,
}

/// A `use`, flattened: from where, under which name; `*` for all.
struct Import {
    path: Vec<String>,
    name: String,
}

/// The parsed crates.
pub(super) struct Crates(BTreeMap<String, Module>);

impl Crates {
    pub(super) fn read(tree: &Tree) -> Self {
        let there = CRATES.iter().filter(|(_, folder)| tree.file(&format!("{folder}/lib.rs")).is_some());
        Self(there.map(|(name, folder)| ((*name).to_owned(), load(tree, folder, "lib"))).collect())
    }

    /// The public names of a module.
    pub(super) fn public(&self, krate: &str, path: &[String]) -> BTreeMap<String, Found<'_>> {
        let mut names = BTreeMap::new();
        let Some(module) = self.module(krate, path) else { return names };
        for item in &module.items {
            if let Some((name, Visibility::Public(_))) = named(item) {
                let thing = if matches!(item, Item::Mod(_)) { Thing::Module } else { Thing::Item(item) };
                names.insert(name.clone(), Found { krate: krate.to_owned(), module: path.to_vec(), name, thing });
            }
        }
        for import in imports(module, true) {
            let (from, place) = self.absolute(krate, path, &import.path);
            if import.name == "*" {
                names.extend(self.public(&from, &place));
                continue;
            }
            let (last, place) = place.split_last().expect("a use names something");
            let found = self.find(&from, place, last, STEPS_MAX);
            let found = found.unwrap_or_else(|| panic!("{from}::{}::{last} is not found", place.join("::")));
            names.insert(import.name, found);
        }
        names
    }

    /// Every implementation for a type, in its crate; where several types have its name, in its module.
    pub(super) fn implementations(&self, found: &Found<'_>) -> Vec<&ItemImpl> {
        let mut all = Vec::new();
        if let Some(root) = self.0.get(&found.krate) {
            let is_unique = definitions(root, &found.name) < 2;
            let from = if is_unique { Some(root) } else { self.module(&found.krate, &found.module) };
            from.into_iter().for_each(|module| collect_implementations(module, &found.name, &mut all));
        }
        all
    }

    /// The public functions that macros give a type that is defined without one.
    pub(super) fn given_by_macros(&self, found: &Found<'_>) -> Vec<String> {
        let mut all = Vec::new();
        if let (Some(root), Thing::Item(_)) = (self.0.get(&found.krate), &found.thing) {
            given_by_macros(root, &found.name, &mut all);
        }
        all
    }

    fn module(&self, krate: &str, path: &[String]) -> Option<&Module> {
        path.iter().try_fold(self.0.get(krate)?, |module, name| module.children.get(name))
    }

    /// A path of a `use` in a module, from the top of a crate.
    fn absolute(&self, krate: &str, module: &[String], path: &[String]) -> (String, Vec<String>) {
        let (first, rest) = path.split_first().expect("a use names something");
        let here = |to: &[String]| [module, to].concat();
        match first.as_str() {
            "crate" => (krate.to_owned(), rest.to_vec()),
            "self" => (krate.to_owned(), here(rest)),
            "super" => {
                let above = module.split_last().map(|(_, above)| above).unwrap_or_default();
                match rest.first().map(String::as_str) {
                    Some("super") => self.absolute(krate, above, rest),
                    _ => (krate.to_owned(), [above, rest].concat()),
                }
            }
            name if self.0.contains_key(name) => (name.to_owned(), rest.to_vec()),
            _ => (krate.to_owned(), here(path)),
        }
    }

    fn find(&self, krate: &str, path: &[String], name: &str, steps: usize) -> Option<Found<'_>> {
        let module = self.module(krate, path)?;
        let found = |thing| Found { krate: krate.to_owned(), module: path.to_vec(), name: name.to_owned(), thing };
        let is_it = |item: &&Item| named(item).is_some_and(|(is, _)| is == name);
        if let Some(item) = module.items.iter().find(is_it) {
            return Some(found(if matches!(item, Item::Mod(_)) { Thing::Module } else { Thing::Item(item) }));
        }
        if let Some((of, verbs)) = made_by_macro(module, name) {
            return Some(found(Thing::Macro { of, verbs }));
        }
        let steps = steps.checked_sub(1)?;
        for import in imports(module, false).filter(|import| import.name == name || import.name == "*") {
            let (from, mut place) = self.absolute(krate, path, &import.path);
            let last = if import.name == "*" { Some(name.to_owned()) } else { place.pop() };
            let found = last.and_then(|last| self.find(&from, &place, &last, steps));
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// Parses the module of a file, and the modules below it. Those for tests are left out.
fn load(tree: &Tree, folder: &str, name: &str) -> Module {
    let paths = [format!("{folder}/{name}.rs"), format!("{folder}/{name}/mod.rs")];
    let Some(file) = paths.iter().find_map(|path| tree.file(path)) else { return Module::default() };
    let parsed = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
    let below = if name == "lib" { folder.to_owned() } else { format!("{folder}/{name}") };
    module(tree, &below, parsed.items)
}

fn module(tree: &Tree, folder: &str, items: Vec<Item>) -> Module {
    let items: Vec<_> = items.into_iter().filter(|item| !is_for_tests(attributes(item))).collect();
    let mut children = BTreeMap::new();
    for item in &items {
        let Item::Mod(item) = item else { continue };
        let name = item.ident.to_string();
        let child = match &item.content {
            Some((_, items)) => module(tree, &format!("{folder}/{name}"), items.clone()),
            None => load(tree, folder, &name),
        };
        children.insert(name, child);
    }
    Module { items, children }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    let is_it = |attribute: &Attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    };
    attributes.iter().any(is_it)
}

fn named(item: &Item) -> Option<(String, &Visibility)> {
    let (name, visibility) = match item {
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Union(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Static(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        Item::Mod(item) => (&item.ident, &item.vis),
        _ => return None,
    };
    Some((name.to_string(), visibility))
}

fn imports(module: &Module, public: bool) -> impl Iterator<Item = Import> {
    let mut imports = Vec::new();
    for item in &module.items {
        if let Item::Use(item) = item
            && (!public || matches!(item.vis, Visibility::Public(_)))
        {
            flatten(&item.tree, &mut Vec::new(), &mut imports);
        }
    }
    imports.into_iter()
}

fn flatten(tree: &UseTree, path: &mut Vec<String>, imports: &mut Vec<Import>) {
    let mut import = |last: Option<String>, name: String| {
        let path = path.iter().cloned().chain(last).collect();
        imports.push(Import { path, name });
    };
    match tree {
        UseTree::Name(name) if name.ident == "self" => import(None, path.last().cloned().unwrap_or_default()),
        UseTree::Name(name) => import(Some(name.ident.to_string()), name.ident.to_string()),
        UseTree::Rename(name) => import(Some(name.ident.to_string()), name.rename.to_string()),
        UseTree::Glob(_) => import(None, "*".to_owned()),
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            flatten(&part.tree, path, imports);
            path.pop();
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, path, imports)),
    }
}

/// How many types of a crate have a name.
fn definitions(module: &Module, name: &str) -> usize {
    let is_type = |item: &&Item| {
        matches!(item, Item::Struct(_) | Item::Enum(_) | Item::Trait(_))
            && named(item).is_some_and(|(is, _)| is == name)
    };
    let below: usize = module.children.values().map(|child| definitions(child, name)).sum();
    module.items.iter().filter(is_type).count() + below
}

fn collect_implementations<'a>(module: &'a Module, name: &str, all: &mut Vec<&'a ItemImpl>) {
    for item in &module.items {
        if let Item::Impl(item) = item
            && let Type::Path(of) = &*item.self_ty
            && of.path.segments.last().is_some_and(|last| last.ident == name)
        {
            all.push(item);
        }
    }
    module.children.values().for_each(|child| collect_implementations(child, name, all));
}

/// Public functions that macros of a crate give a type by its name, the first word of a call.
fn given_by_macros(module: &Module, name: &str, all: &mut Vec<String>) {
    let macros = || module.items.iter().filter_map(|item| if let Item::Macro(item) = item { Some(item) } else { None });
    for call in macros().filter(|call| words(call.mac.tokens.clone()).first().is_some_and(|first| first == name)) {
        let definition = macros().find(|is| is.ident.as_ref().is_some_and(|ident| call.mac.path.is_ident(ident)));
        all.extend(definition.iter().flat_map(|is| public_functions(&words(is.mac.tokens.clone()))));
    }
    module.children.values().for_each(|child| given_by_macros(child, name, all));
}

/// The macro of a module that makes a type of this name, and the public functions that stand in it: the name stands
/// where the macro is called, or in the macro itself.
fn made_by_macro(module: &Module, name: &str) -> Option<(String, Vec<String>)> {
    let macros = module.items.iter().filter_map(|item| if let Item::Macro(item) = item { Some(item) } else { None });
    let (definitions, calls): (Vec<&ItemMacro>, Vec<&ItemMacro>) = macros.partition(|item| item.ident.is_some());
    let of = |definition: &ItemMacro| definition.ident.as_ref().map(ToString::to_string).unwrap_or_default();
    for definition in definitions {
        let words = words(definition.mac.tokens.clone());
        let called = calls.iter().any(|call| {
            call.mac.path.is_ident(&of(definition)) && self::words(call.mac.tokens.clone()).iter().any(|is| is == name)
        });
        let stands = words.windows(2).any(|pair| ["struct", "enum"].contains(&&*pair[0]) && pair[1] == name);
        if called || stands {
            return Some((of(definition), public_functions(&words)));
        }
    }
    None
}

fn public_functions(words: &[String]) -> Vec<String> {
    let name = |three: &[String]| match three {
        [vis, word, name, ..] if vis == "pub" && word == "fn" => Some(format!("fn {name}")),
        [vis, constant, word, name] if vis == "pub" && constant == "const" && word == "fn" => {
            Some(format!("fn {name}"))
        }
        _ => None,
    };
    words.windows(4).filter_map(name).collect()
}

fn words(tokens: TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => words(group.stream()),
            TokenTree::Ident(word) => vec![word.to_string()],
            TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
        })
        .collect()
}
