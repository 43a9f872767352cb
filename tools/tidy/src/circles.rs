//! No circle of files inside a crate.
//!
//! A file that imports another depends on it. Where the imports lead back, neither file can be read, tested or moved
//! alone, and the circle grows with each import that is added to one of its files. The compiler allows it. So this
//! module reads the imports of each crate's files: `use` statements, and paths that begin with `crate`, `super`, `self`
//! or a module of the file's own.
//!
//! A file may name the modules above it (a parent states what its parts share), and a parent its own modules. So an
//! import from a module to one of those that contain it does not count.
//!
//! Not detected: methods that a file adds to a type of another file, and the output of macros.

use crate::{File, Tree};
use std::collections::{BTreeMap, BTreeSet};

/// A module's path in its crate: empty for the root.
type Module = Vec<String>;
/// Which modules each module imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The crate whose two planes must not import each other, and the planes.
const PLANES: (&str, [&str; 2]) = ("engine/protocol", ["data", "control"]);

/// Circles of files, crate by crate.
pub fn circles(tree: &Tree) -> Vec<String> {
    crates(tree).iter().flat_map(|(name, files)| circles_in(name, &imports(files))).collect()
}

/// Imports from one plane of the protocols to the other.
pub fn across_planes(tree: &Tree) -> Vec<String> {
    let (name, planes) = PLANES;
    let crates = crates(tree);
    let Some(files) = crates.get(name) else { return vec![format!("there is no crate {name}")] };
    let plane = |module: &Module| module.first().filter(|first| planes.contains(&first.as_str())).cloned();
    let mut found = Vec::new();
    for (from, targets) in imports(files) {
        for to in targets {
            if let (Some(here), Some(there)) = (plane(&from), plane(&to))
                && here != there
            {
                found.push(format!("{name}: {} imports {}", shown(&from), shown(&to)));
            }
        }
    }
    found
}

/// The shipped sources of each crate, by module.
fn crates(tree: &Tree) -> BTreeMap<String, BTreeMap<Module, &File>> {
    let mut crates: BTreeMap<String, BTreeMap<Module, &File>> = BTreeMap::new();
    for file in tree.rust() {
        let Some((name, path)) = file.path.split_once("/src/") else { continue };
        let Some(path) = path.strip_suffix(".rs") else { continue };
        let mut module: Module = path.split('/').map(str::to_owned).collect();
        module.pop_if(|last| matches!(last.as_str(), "lib" | "main" | "mod"));
        crates.entry(name.to_owned()).or_default().insert(module, file);
    }
    crates
}

fn imports(files: &BTreeMap<Module, &File>) -> Imports {
    let known: BTreeSet<&Module> = files.keys().collect();
    files.iter().map(|(module, file)| (module.clone(), imports_of(module, file.shipped(), &known))).collect()
}

fn imports_of(module: &Module, code: &str, known: &BTreeSet<&Module>) -> BTreeSet<Module> {
    let (mut paths, mut rest) = (Vec::new(), String::new());
    let mut left = code;
    while let Some(start) = find_use(left) {
        let (before, statement) = left.split_at(start);
        let (statement, after) = statement.split_once(';').unwrap_or((statement, ""));
        expand(&[], &statement["use".len()..], &mut paths);
        rest.push_str(before);
        left = after;
    }
    rest.push_str(left);
    for word in rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
        let path: Vec<String> = word.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if path.len() > 1 {
            paths.push(path);
        }
    }
    let targets = paths.iter().filter_map(|path| resolve(module, path, known));
    // A module may name those that contain it.
    targets.filter(|target| !module.starts_with(target)).collect()
}

/// Where the next `use` statement begins.
fn find_use(code: &str) -> Option<usize> {
    let begins = |at: usize| code[..at].chars().next_back().is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
    code.match_indices("use ").map(|(at, _)| at).find(|at| begins(*at))
}

/// The paths of a `use` tree.
fn expand(before: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    let tree = tree.split(" as ").next().filter(|_| !tree.contains('{')).unwrap_or(tree).trim();
    let (head, group) = tree.split_once('{').map_or((tree, None), |(head, group)| (head, Some(group)));
    let mut path = before.to_vec();
    path.extend(head.split("::").map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned));
    let Some(group) = group else {
        return paths.push(path);
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&path, &group[start..at], paths);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !group[start..].trim().is_empty() {
        expand(&path, &group[start..], paths);
    }
}

/// The module of the same crate that a path leads into.
fn resolve(module: &Module, path: &[String], known: &BTreeSet<&Module>) -> Option<Module> {
    let child = |name: &String| [module.as_slice(), std::slice::from_ref(name)].concat();
    let mut rest = path;
    let mut target = match path.first()?.as_str() {
        "crate" => Module::new(),
        "self" | "super" => module.clone(),
        _ if known.contains(&child(&path[0])) => module.clone(),
        _ => return None,
    };
    while let Some(first) = rest.first().filter(|first| ["crate", "self", "super"].contains(&first.as_str())) {
        if first == "super" {
            target.pop();
        }
        rest = &rest[1..];
    }
    for part in rest {
        target.push(part.clone());
        if !known.contains(&target) {
            target.pop();
            break;
        }
    }
    (known.contains(&target) && target != *module).then_some(target)
}

/// The circles among a crate's files: for each, the files and what they import of each other.
fn circles_in(name: &str, imports: &Imports) -> Vec<String> {
    let reached: BTreeMap<&Module, BTreeSet<&Module>> =
        imports.keys().map(|module| (module, reach(module, imports))).collect();
    let mut found = Vec::new();
    let mut seen: BTreeSet<&Module> = BTreeSet::new();
    for (module, from_here) in &reached {
        let is_mutual = |other: &&&Module| reached[**other].contains(module);
        let circle: BTreeSet<&Module> = from_here.iter().filter(is_mutual).copied().collect();
        if !circle.contains(module) || !seen.insert(module) {
            continue;
        }
        seen.extend(circle.iter().copied());
        let steps = circle.iter().flat_map(|from| {
            let inside = imports[*from].iter().filter(|to| circle.contains(to));
            inside.map(move |to| format!("{} imports {}", shown(from), shown(to)))
        });
        let steps: Vec<String> = steps.collect();
        found.push(format!("{name}: {} files: {}", circle.len(), steps.join(", ")));
    }
    found
}

/// All modules that a module imports, and those import, and so on.
fn reach<'a>(module: &'a Module, imports: &'a Imports) -> BTreeSet<&'a Module> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![module]);
    while let Some(next) = open.pop() {
        let targets = imports.get(next).into_iter().flatten();
        open.extend(targets.filter(|target| reached.insert(*target)));
    }
    reached
}

fn shown(module: &Module) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| File::new(path, text)).collect();
        Tree { files, ..Tree::default() }
    }

    #[test]
    fn a_planted_circle_is_found_by_use_and_by_path() {
        for back in ["use crate::a::A;", "fn f() { super::a::A::new(); }", "use super::{c, a::{A, B}};"] {
            let tree = tree(&[
                ("x/src/lib.rs", "mod a; mod b; mod c;"),
                ("x/src/a.rs", "use crate::{b::B, c::C};"),
                ("x/src/b.rs", back),
                ("x/src/c.rs", ""),
            ]);
            let found = circles(&tree);
            assert_eq!(found, ["x: 2 files: a imports b, b imports a"], "{back}");
        }
    }

    #[test]
    fn a_circle_of_three_is_found_once() {
        let tree = tree(&[
            ("x/src/lib.rs", "pub use a::A;"),
            ("x/src/a.rs", "use crate::b::B;"),
            ("x/src/b.rs", "use crate::c::C;"),
            ("x/src/c.rs", "type A = crate::a::A;"),
        ]);
        assert_eq!(circles(&tree), ["x: 3 files: a imports b, b imports c, c imports a"]);
    }

    #[test]
    fn parents_and_their_own_modules_make_no_circle_and_tests_count_for_nothing() {
        let tree = tree(&[
            ("x/src/lib.rs", "mod a; use a::part::Part;"),
            ("x/src/a.rs", "mod part; use part::Part; pub struct A;"),
            ("x/src/a/part.rs", "use super::A; use crate::Root;\n#[cfg(test)]\nmod tests { use crate::b::B; }"),
            ("x/src/b.rs", "use crate::a::part::Part;"),
        ]);
        assert_eq!(circles(&tree), Vec::<String>::new());
    }

    #[test]
    fn an_import_across_the_planes_is_found_both_ways() {
        let tree = tree(&[
            ("engine/protocol/src/lib.rs", ""),
            ("engine/protocol/src/data.rs", "pub mod cut;"),
            ("engine/protocol/src/data/cut.rs", "use crate::control::view::Cut;"),
            ("engine/protocol/src/control.rs", ""),
            ("engine/protocol/src/control/view.rs", "use crate::data::cut::Ending;"),
        ]);
        assert_eq!(across_planes(&tree).len(), 2);
    }
}
