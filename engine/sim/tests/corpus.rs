//! The inputs that fuzzing found worth keeping, replayed on every build, with the very functions that the fuzz targets
//! run.

use bourdon_sim::hostile;
use std::path::Path;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
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

#[test]
fn datagram() {
    replay("datagram", hostile::datagram);
}

#[test]
fn process() {
    replay("process", hostile::process);
}

#[test]
fn client() {
    replay("client", hostile::client);
}

#[test]
fn scripts_at_random() {
    let mut state = 1u64;
    for _ in 0..3000 {
        let script: Vec<u8> = (0..600)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        hostile::process(&script);
        hostile::client(&script);
        hostile::datagram(&script);
    }
}
