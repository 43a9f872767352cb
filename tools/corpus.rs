//! Replays the inputs that are kept for a fuzz target, with the very function that the target runs.

use std::path::Path;

/// Calls `body` with each input of `engine/fuzz/corpus/TARGET`.
pub(crate) fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../engine/fuzz/corpus").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} holds {} files", folder.display(), files.len());
    for file in files {
        let bytes = std::fs::read(&file).unwrap();
        assert!(bytes.len() <= 8192, "{} is too long to keep", file.display());
        if std::panic::catch_unwind(|| body(&bytes)).is_err() {
            panic!("{}", file.display());
        }
    }
}
