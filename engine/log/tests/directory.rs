//! Plain files in a real directory: what is refused, and with which advice.

use bourdon_log::{Directory, Entry, Error, Log, Reader, Settings};
use std::fs::{self, Permissions};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn settings(instance: u64) -> Settings {
    let settings = Settings::new(instance);
    Settings { segment_bytes: 65_536, ..settings }
}

fn open(path: &Path, instance: u64) -> Result<Log<Directory>, Error> {
    Log::open(Directory::lock(path)?, settings(instance))
}

fn refused(path: &Path, instance: u64, expected: &str) {
    let error = open(path, instance).expect_err("it is refused").to_string();
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_log_comes_back_from_files() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("log");
    for round in 0..3_u64 {
        let mut log = open(&path, 1).expect("it opens");
        assert_eq!(log.next(), round * 100);
        for number in 0..100 {
            log.append(1, number, &[round as u8; 2000]).expect("it takes it");
        }
        log.close().expect("it closes");
    }
    let reader = Reader::open(Directory::read(&path).expect("it opens")).expect("it is a log");
    let mut count = 0;
    let end = reader.read(0, |entry| {
        assert!(matches!(entry, Entry::Record(record) if record.bytes == [(record.position / 100) as u8; 2000]));
        count += 1;
        ControlFlow::Continue(())
    });
    assert_eq!((end.expect("readable"), count), (300, 300));
}

#[test]
fn what_can_not_be_used_is_refused_with_advice() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("log");
    let mut log = open(&path, 1).expect("it opens");
    refused(&path, 1, "another process writes to it: stop that process");
    log.append(1, 1, b"one").expect("it takes it");
    log.close().expect("it closes");
    refused(&path, 2, "is of instance 0000000000000001, not of 0000000000000002: name an empty directory");
    refused(&place.path().join("no/such"), 1, "name a directory whose parent exists");
    let file = place.path().join("file");
    fs::write(&file, "x").expect("it can be written");
    refused(&file, 1, "name a directory");
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
    mode(0o770);
    refused(&path, 1, "(mode 770): take that away with chmod go-w");
    mode(0o700);
    let segment = path.join("0000000000000001.segment");
    let whole = fs::read(&segment).expect("readable");
    let mut later = whole.clone();
    later[8] = 2;
    let sum = crc32c::crc32c(&later[..60]);
    later[60..64].copy_from_slice(&sum.to_le_bytes());
    fs::write(&segment, later).expect("it can be written");
    refused(&path, 1, "has format version 2, and this release reads version 1: use a later release");
    fs::write(&segment, whole).expect("it can be written");
    assert_eq!(open(&path, 1).expect("it opens again").next(), 1);
}

#[test]
fn a_directory_that_can_not_be_written_or_is_another_users_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("log");
    fs::create_dir(&path).expect("it can be made");
    fs::set_permissions(&path, Permissions::from_mode(0o555)).expect("it is ours");
    if !rustix::process::geteuid().is_root() {
        return refused(&path, 1, "it can't be written");
    }
    // Root may write whatever the permissions are.
    std::os::unix::fs::chown(&path, Some(12_345), None).expect("root may");
    refused(&path, 1, "it belongs to user 12345, and this process runs as user 0");
}

#[test]
fn an_empty_directory_has_no_log() {
    let place = tempfile::tempdir().expect("a directory");
    let reader = Reader::open(Directory::read(place.path()).expect("it opens"));
    assert!(matches!(reader, Err(Error::Empty)));
}

#[test]
fn segments_have_a_length_that_works() {
    let place = tempfile::tempdir().expect("a directory");
    for segment_bytes in [0, 4096, 65_537, 2 << 30] {
        let settings = settings(1);
        let opened = Log::open(Directory::lock(place.path()).expect("ours"), Settings { segment_bytes, ..settings });
        assert!(matches!(opened, Err(Error::SegmentBytes { .. })));
    }
    let mut log = open(place.path(), 1).expect("it opens");
    let refused = log.append(1, 1, &[0; 65_536]);
    assert!(matches!(refused, Err(Error::TooLong { .. })));
    assert!(log.append(1, 1, &vec![0; 65_536 - 2 * 4096 - 48]).is_ok(), "the longest");
}
