//! Sorts histories by the instance of the group that they belong to.
//!
//! An observer or member that is resumed after a restart of the whole group continues in the next instance, and its
//! history holds both. A guarantee of one instance does not bind another. So each history is cut where its instance
//! changes, and the pieces of one instance are put into one folder, as if each piece were a separate process.

use super::processes::note;
use super::{ChaosError, Generation, Plan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Added to the rank of a process from another generation, times that generation.
const CROSSED: usize = 1_000;

/// The histories of one instance.
#[derive(Debug, Default)]
pub(super) struct Instance {
    pub(super) folder: PathBuf,
    /// The generation in which it formed.
    pub(super) generation: u16,
    /// The processes that continued in another instance, by the names of their files without the extension.
    pub(super) left: Vec<String>,
    /// The members of other generations that joined it, as publishers.
    pub(super) joined: Vec<String>,
}

/// Cuts all histories of a campaign, and writes the pieces by instance.
pub(super) fn lay_out(plan: &Plan, generations: &[Generation]) -> Result<Vec<Instance>, ChaosError> {
    let mut instances: BTreeMap<String, Instance> = BTreeMap::new();
    for generation in generations {
        found(plan, generation, &mut instances)?;
    }
    for generation in generations {
        let mut files: Vec<PathBuf> = list(&generation.folder)?;
        files.sort();
        for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "tsv")) {
            cut(generation, file, &mut instances)?;
        }
        let killed = std::fs::read_to_string(generation.folder.join("killed")).unwrap_or_default(); // none was
        for instance in instances.values().filter(|instance| instance.generation == generation.number) {
            killed.lines().try_for_each(|name| note(&instance.folder.join("killed"), name))?;
        }
    }
    let mut instances: Vec<_> = instances.into_values().collect();
    instances.sort_by_key(|instance| instance.generation);
    Ok(instances)
}

/// Records which instances formed in a generation: the instances in which its members begin.
fn found(plan: &Plan, generation: &Generation, instances: &mut BTreeMap<String, Instance>) -> Result<(), ChaosError> {
    for file in list(&generation.folder)? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("member-") || !name.ends_with(".tsv") {
            continue;
        }
        let text = std::fs::read_to_string(&file).map_err(|source| ChaosError::Io { path: file.clone(), source })?;
        if let Some((id, _)) = pieces(&text).first() {
            let folder = plan.folder.join(format!("instance-{id}"));
            std::fs::create_dir_all(&folder).map_err(|source| ChaosError::Io { path: folder.clone(), source })?;
            let new = Instance { folder, generation: generation.number, ..Instance::default() };
            instances.entry((*id).to_owned()).or_insert(new);
        }
    }
    Ok(())
}

fn cut(generation: &Generation, file: &Path, instances: &mut BTreeMap<String, Instance>) -> Result<(), ChaosError> {
    let text = std::fs::read_to_string(file).map_err(|source| ChaosError::Io { path: file.to_owned(), source })?;
    let stem = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let mut before: Option<String> = None;
    for (place, (id, piece)) in pieces(&text).into_iter().enumerate() {
        // Each member that formed the instance may have been killed before its first line was written.
        let Some(instance) = instances.get_mut(id) else { continue };
        let mut name = stem.to_owned();
        if place > 0 || instance.generation != generation.number {
            name = crossed(stem, generation.number);
            instance.joined.push(publisher(stem, generation.number));
            note(&instance.folder.join("killed"), &process(&name))?;
        }
        let path = instance.folder.join(format!("{name}.tsv"));
        std::fs::write(&path, piece).map_err(|source| ChaosError::Io { path, source })?;
        if let Some(before) = before.replace(id.to_owned()).and_then(|before| instances.get_mut(&before)) {
            before.left.push(stem.to_owned());
        }
    }
    Ok(())
}

/// A state belongs to the instance that follows it, and so do all lines between the two. A member that was superseded
/// and ended before it was in the next instance leaves no piece of that instance.
fn pieces(text: &str) -> Vec<(&str, &str)> {
    let mut pieces = Vec::new();
    let (mut start, mut id, mut at) = (0, None, 0);
    for line in text.split_inclusive('\n') {
        let instance = line.strip_prefix("I\t").map(|rest| rest.trim_end());
        let ends = id.is_some() && (instance.is_some() || line.starts_with("S\t"));
        if ends && let Some(id) = id.take() {
            pieces.push((id, &text[start..at]));
            start = at;
        }
        id = instance.or(id);
        at += line.len();
    }
    pieces.extend(id.map(|id| (id, &text[start..])));
    pieces
}

/// Role, rank and incarnation in the name of a file.
fn parts(stem: &str) -> (&str, usize, u32) {
    let (role, rest) = stem.split_once('-').unwrap_or((stem, "0"));
    let (rank, incarnation) = rest.split_once('.').unwrap_or((rest, "1"));
    (role, rank.parse().unwrap_or(0), incarnation.parse().unwrap_or(1))
}

/// The name under which a process of a generation publishes.
fn publisher(stem: &str, generation: u16) -> String {
    let (_, rank, incarnation) = parts(stem);
    format!("g{generation}.{rank}.{incarnation}")
}

/// `observer-0.2` of generation 3 in another generation: `observer-3000.3`, a later incarnation, which joins late.
fn crossed(stem: &str, generation: u16) -> String {
    let (role, rank, incarnation) = parts(stem);
    format!("{role}-{}.{}", rank + CROSSED * usize::from(generation), incarnation + 1)
}

fn process(name: &str) -> String {
    let rank = name.split_once('.').map_or(name, |(rank, _)| rank);
    rank.replace('-', ":")
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, ChaosError> {
    let io = |source| ChaosError::Io { path: folder.to_owned(), source };
    let entries = std::fs::read_dir(folder).map_err(io)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(io)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_cut_where_its_instance_changes() {
        let text = "S\t1\t00\nI\taa\nV\t1\t0\nI\tbb\nV\t1\t0,1\n";
        assert_eq!(pieces(text), [("aa", "S\t1\t00\nI\taa\nV\t1\t0\n"), ("bb", "I\tbb\nV\t1\t0,1\n")]);
        assert_eq!(pieces("S\t1\t00\n"), []);
        let superseded = "I\taa\nV\t1\t0\nS\t9\t00\nD\t1\n";
        assert_eq!(pieces(superseded), [("aa", "I\taa\nV\t1\t0\n")]);
        let joined = format!("{superseded}I\tbb\nV\t2\t0\n");
        assert_eq!(pieces(&joined)[1], ("bb", "S\t9\t00\nD\t1\nI\tbb\nV\t2\t0\n"));
        let name = crossed("observer-0.2", 3);
        assert_eq!((name.as_str(), process(&name).as_str()), ("observer-3000.3", "observer:3000"));
    }
}
