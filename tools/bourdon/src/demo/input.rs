//! What the demo publishes: recorded events, lines, frames, or synthetic bursts.
//!
//! A record is bytes and the time it was received, as an offset from the first record. Every publisher reads the input
//! itself, so that only the group carries records between processes: what can be read only once, as a pipe, is copied
//! into memory that all of them read. The format is decided by content, and a file that is cut short or not understood
//! is refused before any process starts.

mod compressed;
mod recording;

use crate::exit::{Failure, note};
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The most an input may hold decompressed: publishers keep it in memory, and a compressed file can claim anything.
const INPUT_MAX_BYTES: u64 = 1 << 30;
/// The most records an input may have: each takes some 60 bytes beside its payload, in every publisher.
const RECORDS_MAX: usize = 20_000_000;
/// Bytes of a synthetic record: the size that every figure is quoted for.
const SYNTHETIC_BYTES: usize = 64;
/// How long the default synthetic input takes at its own pace.
const SYNTHETIC_NS_PER_MESSAGE: u64 = 100_000;
/// The default number of messages of synthetic input.
pub(crate) const SYNTHETIC_MESSAGES: u64 = 100_000;

/// How an input is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
pub(crate) enum Format {
    /// Decide by content
    Auto,
    /// No file: bursts generated from a seed
    Synthetic,
    /// Databento binary encoding, plain or zstd-compressed
    Dbn,
    /// A message a line
    Lines,
    /// A length (u32, little-endian), then that many bytes
    Framed,
}

/// One message to be published.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) payload: Box<[u8]>,
    /// When it was received, counted from the first record; recorded gaps count in full.
    pub(crate) at_ns: u64,
    /// Whether it is part of an opening snapshot, which is sent at once.
    pub(crate) snapshot: bool,
}

/// Reads or generates an input.
pub(crate) fn load(path: Option<&Path>, format: Format, limit: Option<u64>) -> Result<Vec<Record>, Failure> {
    let limit = limit.unwrap_or(if path.is_none() { SYNTHETIC_MESSAGES } else { u64::MAX });
    let mut records = match (path, format) {
        (None, Format::Auto | Format::Synthetic) => synthetic(limit),
        (None, _) => return Err(Failure::unusable("this format needs a file: name it with --input")),
        (Some(_), Format::Synthetic) => {
            return Err(Failure::unusable("synthetic input is generated, not read: leave out --input or --format"));
        }
        (Some(path), format) => read(path, format, usize::try_from(limit).unwrap_or(usize::MAX))?,
    };
    if records.len() > RECORDS_MAX {
        return Err(Failure::unusable(format!(
            "the input holds more than {RECORDS_MAX} messages; publish part of it with --messages"
        )));
    }
    records.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if records.is_empty() {
        return Err(Failure::unusable("the input holds no message: there is nothing to publish"));
    }
    Ok(records)
}

fn unreadable(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::unusable(format!("can't read {}: {why}", path.display()))
}

/// What a file or a pipe holds, one byte more than is allowed at most.
fn bytes_of(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let input: Box<dyn Read> =
        if path == Path::new("-") { Box::new(std::io::stdin()) } else { Box::new(File::open(path)?) };
    input.take(INPUT_MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read(path: &Path, format: Format, limit: usize) -> Result<Vec<Record>, Failure> {
    let unreadable = |why: &dyn std::fmt::Display| unreadable(path, why);
    let bytes = bytes_of(path).map_err(|error| unreadable(&error))?;
    let bytes = plain(bytes, INPUT_MAX_BYTES).map_err(|why| unreadable(&why))?;
    let format = if format == Format::Auto { recognise(&bytes) } else { Some(format) };
    // One record more than is allowed, so that the excess is noticed.
    let most = limit.min(RECORDS_MAX + 1);
    let records = match format {
        Some(Format::Dbn) => recording::records(&bytes, most),
        Some(Format::Framed) => {
            framed(&bytes, most).ok_or_else(|| "its last frame is cut short; fetch the file again".into())
        }
        Some(Format::Lines) => Ok(lines(&bytes, most)),
        _ => Err("it is neither DBN, nor framed records, nor text lines; name what it is with --format".into()),
    };
    records.map_err(|why: String| unreadable(&why))
}

/// The input's bytes, decompressed where they are compressed: at most so many, both before and after.
fn plain(bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, String> {
    let bounded = |bytes: Vec<u8>, what: &str| {
        let is_short = bytes.len() as u64 <= max_bytes;
        is_short.then_some(bytes).ok_or_else(|| format!("it {what} more than {max_bytes} bytes; cut it into parts"))
    };
    let bytes = bounded(bytes, "holds")?; // what was read of a longer one looks damaged
    match compressed::decompressed(&bytes, max_bytes + 1) {
        Some(plain) => bounded(plain?, "decompresses to"),
        None => Ok(bytes),
    }
}

fn recognise(bytes: &[u8]) -> Option<Format> {
    if recording::is_file(bytes) {
        return Some(Format::Dbn);
    }
    let text = std::str::from_utf8(bytes).is_ok_and(|text| !text.contains('\0'));
    if text && !bytes.is_empty() {
        return Some(Format::Lines);
    }
    let frames_fit = || {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = split_frame(rest)?.1;
        }
        Some(Format::Framed)
    };
    let fragment = || recording::is_fragment(bytes).then_some(Format::Dbn);
    if bytes.is_empty() { None } else { frames_fit().or_else(fragment) }
}

/// Untimed records follow each other at the synthetic pace.
fn untimed(payload: &[u8], index: usize) -> Record {
    Record { payload: payload.into(), at_ns: index as u64 * SYNTHETIC_NS_PER_MESSAGE, snapshot: false }
}

fn lines(bytes: &[u8], most: usize) -> Vec<Record> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.split(|byte| *byte == b'\n').take(most).enumerate().map(|(index, line)| untimed(line, index)).collect()
}

/// The first frame's payload, and what follows it.
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn framed(mut bytes: &[u8], most: usize) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while !bytes.is_empty() && records.len() < most {
        let (payload, rest) = split_frame(bytes)?;
        records.push(untimed(payload, records.len()));
        bytes = rest;
    }
    Some(records)
}

/// Bursts like those of market data: most messages follow the previous one within microseconds, then there is a pause.
fn synthetic(messages: u64) -> Vec<Record> {
    let mut rng = fastrand::Rng::with_seed(0x00B0_0DD0);
    let (mut records, mut at_ns, mut left) = (Vec::new(), 0, 0);
    for index in 0..messages {
        if left == 0 {
            left = 1 + (rng.f64().powi(4) * 400.0) as u64;
            // The mean burst has 81 messages, so a gap of this length on average keeps the pace.
            at_ns += (81.0 * SYNTHETIC_NS_PER_MESSAGE as f64 * 2.0 * rng.f64()) as u64;
        }
        left -= 1;
        at_ns += rng.u64(200..2_000);
        let mut payload = [0; SYNTHETIC_BYTES];
        payload[..8].copy_from_slice(&index.to_le_bytes());
        rng.fill(&mut payload[8..]);
        records.push(Record { payload: payload.into(), at_ns, snapshot: false });
    }
    records
}

/// The source of an input, as the demo sends it to a publisher.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Source {
    pub(crate) path: Option<PathBuf>,
    pub(crate) format: Format,
    pub(crate) limit: Option<u64>,
}

impl Source {
    /// Makes an input that can be read only once one that each process can read. Returns what holds it: it lasts until
    /// that is dropped.
    pub(crate) fn make_repeatable(&mut self) -> Result<Option<File>, Failure> {
        let Some(path) = &mut self.path else { return Ok(None) };
        if path != Path::new("-") && std::fs::metadata(&*path).is_ok_and(|it| it.is_file() || it.is_dir()) {
            return Ok(None);
        }
        note(format!("reading {} up to its end", path.display()));
        let bytes = bytes_of(path).map_err(|error| unreadable(path, error))?;
        let copy = memfd_create("bourdon-input", MemfdFlags::CLOEXEC).map_err(std::io::Error::from).map(File::from);
        let copy = copy.and_then(|mut copy| copy.write_all(&bytes).map(|()| copy));
        let copy = copy.map_err(|error| unreadable(path, format!("no memory for a copy of it: {error}")))?;
        *path = format!("/proc/{}/fd/{}", std::process::id(), copy.as_raw_fd()).into();
        Ok(Some(copy))
    }

    pub(crate) fn load(&self) -> Result<Vec<Record>, Failure> {
        load(self.path.as_deref(), self.format, self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_decides_the_format() {
        assert_eq!(recognise(b"one\ntwo\n"), Some(Format::Lines));
        assert_eq!(recognise(b"\x01\x00\x00\x00a\x02\x00\x00\x00bc"), Some(Format::Framed));
        assert_eq!(recognise(b"DBN\x01"), Some(Format::Dbn));
        assert_eq!(recognise(b"\x04\xa023456789abcdef"), Some(Format::Dbn), "a fragment");
        assert_eq!(recognise(b"\xff\xfe\x00\x01\x02"), None);
        assert_eq!(recognise(b""), None);
    }

    #[test]
    fn an_input_beyond_the_bound_is_named_so_compressed_or_not() {
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).expect("it is compressed");
        let noise: Vec<u8> = (0..200_u32).flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes()).collect();
        assert_eq!(plain(b"one\n".to_vec(), 4), Ok(b"one\n".to_vec()));
        assert_eq!(plain(zstd(b"one\n"), 99), Ok(b"one\n".to_vec()));
        let is_long = |bytes, why: &str| plain(bytes, 99).is_err_and(|error| error.starts_with(why));
        assert!(is_long(noise.clone(), "it holds more than 99 bytes"));
        assert!(is_long(zstd(&[7; 1_000]), "it decompresses to more than 99 bytes"));
        // As it is read: one byte more than the bound.
        assert!(is_long(zstd(&noise)[..100].to_vec(), "it holds more than 99 bytes"));
    }

    #[test]
    fn a_file_cut_short_is_refused() {
        assert!(framed(b"\x05\x00\x00\x00abc", 9).is_none());
    }

    #[test]
    fn synthetic_input_is_the_same_every_time_and_takes_its_ten_seconds() {
        let (a, b) = (synthetic(SYNTHETIC_MESSAGES), synthetic(SYNTHETIC_MESSAGES));
        assert!(a.iter().zip(&b).all(|(a, b)| a.payload == b.payload && a.at_ns == b.at_ns));
        let seconds = a.last().unwrap().at_ns as f64 / 1e9;
        assert!((8.0..13.0).contains(&seconds), "{seconds}");
    }
}
