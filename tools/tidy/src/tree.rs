//! All text files that belong to the project.
//!
//! A list from git would miss files that have not been added yet, and fail where there is no git, as in an unpacked
//! archive. So the folders are walked, except those that hold what builds and fuzzers leave behind.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders whose contents are not the project's text.
const LEFT_OUT: &[&str] = &["target", ".git", "corpus", "artifacts", "node_modules"];
/// What text files are called.
const ENDINGS: &[&str] = &["rs", "toml", "md", "sh", "py", "yml", "yaml"];

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Its path from the top, with slashes.
    pub path: String,
    /// Its text.
    pub text: String,
    /// A Rust file's code without comments and the contents of literals, line for line; else the text.
    pub code: String,
}

impl File {
    /// A file of this text.
    pub fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { crate::code(text) } else { text.to_owned() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    /// Whether it is a Rust source.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether it is compiled for tests, benches or examples only.
    pub fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/", "/fuzz/"].iter().any(|folder| self.path.contains(folder))
    }

    /// The code, without modules that are compiled for tests only.
    pub fn shipped(&self) -> &str {
        if self.is_test() { "" } else { self.code.split("#[cfg(test)]\nmod ").next().unwrap_or_default() }
    }
}

/// The project.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Its top folder.
    pub root: PathBuf,
    /// Its text files, by path.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads the tree that contains this crate.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn read() -> Self {
        // Read when the test runs: clones that share a target folder share the program, but not the tree.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let here = Path::new(&here);
        let root = here.ancestors().nth(2).expect("this crate stands two folders deep").to_owned();
        let mut tree = Self { files: Vec::new(), root };
        let mut folders = vec![tree.root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder of the tree can be read") {
                let path = entry.expect("a folder's entry can be read").path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if path.is_dir() && !path.is_symlink() {
                    folders.extend((!LEFT_OUT.contains(&name.as_str())).then_some(path));
                } else if is_text(&folder, &name) {
                    let relative = path.strip_prefix(&tree.root).expect("it was found there").to_string_lossy();
                    // A file that is removed meanwhile is no longer part of the tree.
                    let Ok(text) = fs::read_to_string(&path) else { continue };
                    tree.files.push(File::new(&relative, &text));
                }
            }
        }
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        tree
    }

    /// Its Rust sources.
    pub fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// The file at a path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether there is a file or folder at a path from the top.
    pub fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

fn is_text(folder: &Path, name: &str) -> bool {
    folder.file_name().is_some_and(|folder| folder == ".ci")
        || name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.contains(&ending))
}

/// The number of a line that has something, and the line, for each such line.
pub(crate) fn lines_with<'a>(code: &'a str, wanted: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    code.lines().enumerate().filter(move |(_, line)| has_word(line, wanted)).map(|(index, line)| (index + 1, line))
}

/// Whether a line has a word or path that is not part of a longer one.
pub(crate) fn has_word(line: &str, wanted: &str) -> bool {
    let part_of_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(wanted).any(|(start, _)| {
        !part_of_word(line[..start].chars().next_back()) && !part_of_word(line[start + wanted.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        assert!(has_word("use std::time::Instant;", "std::time"));
        assert!(!has_word("forbid(unsafe_code)", "unsafe"));
        assert!(!has_word("core_std::timely", "std::time"));
    }

    #[test]
    fn tests_are_not_shipped() {
        let file = File::new("a/src/b.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() {} }\n");
        assert_eq!(file.shipped(), "fn f() {}\n");
        assert_eq!(File::new("a/tests/b.rs", "fn f() {}").shipped(), "");
    }
}
