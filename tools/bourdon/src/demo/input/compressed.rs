//! Compressed input: zstd (RFC 8878) and gzip (RFC 1952), of several frames or members too.
//!
//! Tools that compress in parallel or append write several frames one after another, and some begin with a skippable
//! one, which holds an index. A file is all of its frames, as `zstd -d` and `gzip -d` read it.

use std::io::Read;

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];
/// A skippable frame's magic number after its first byte, which is 0x50 to 0x5F.
const SKIPPABLE_MAGIC: [u8; 3] = [0x2A, 0x4D, 0x18];
const GZIP_MAGIC: [u8; 2] = [0x1F, 0x8B];
/// The longest distance that a zstd frame may refer back by, as a power of two: what `zstd --long=31` writes. Memory is
/// used as far as the data fills it, which the limit bounds.
const WINDOW_LOG_MAX: u32 = 31;

/// The decompressed bytes, at most `limit_bytes` of them; `None` if the input is not compressed.
pub(super) fn decompressed(bytes: &[u8], limit_bytes: u64) -> Option<Result<Vec<u8>, String>> {
    let is_skippable =
        bytes.first().is_some_and(|first| first & 0xF0 == 0x50) && bytes[1..].starts_with(&SKIPPABLE_MAGIC);
    if bytes.starts_with(&ZSTD_MAGIC) || is_skippable {
        let decoder = zstd::stream::read::Decoder::new(bytes).and_then(|mut decoder| {
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            Ok(decoder)
        });
        return Some(decoder.and_then(|decoder| read(decoder, limit_bytes)).map_err(damaged));
    }
    if bytes.starts_with(&GZIP_MAGIC) {
        return Some(read(flate2::read::MultiGzDecoder::new(bytes), limit_bytes).map_err(damaged));
    }
    None
}

fn read(decoder: impl Read, limit_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    decoder.take(limit_bytes).read_to_end(&mut plain)?;
    Ok(plain)
}

fn damaged(error: std::io::Error) -> String {
    format!("its compressed data is damaged or cut short ({error}); fetch the file again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        zstd::encode_all(bytes, 3).expect("it is compressed")
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn skippable(bytes: &[u8]) -> Vec<u8> {
        let mut frame = [&[0x5A], &SKIPPABLE_MAGIC[..]].concat();
        frame.extend((bytes.len() as u32).to_le_bytes());
        [&frame, bytes].concat()
    }

    #[test]
    fn all_frames_of_an_input_are_read_and_skippable_ones_are_skipped() {
        let inputs = [
            [zstd(b"one\n"), zstd(b"two\n")].concat(),
            [skippable(b"an index"), zstd(b"one\n"), skippable(b""), zstd(b"two\n"), skippable(b"x")].concat(),
            [gzip(b"one\n"), gzip(b"two\n")].concat(),
        ];
        for input in inputs {
            assert_eq!(decompressed(&input, 99), Some(Ok(b"one\ntwo\n".to_vec())));
            assert!(decompressed(&input[..input.len() - 3], 99).is_some_and(|read| read.is_err()), "it is cut short");
        }
        // Its header names a window of 2^28 bytes; its only block is not compressed.
        let wide = [&ZSTD_MAGIC[..], &[0, 18 << 3, 4 << 3 | 1, 0, 0], b"one\n"].concat();
        assert_eq!(decompressed(&wide, 99), Some(Ok(b"one\n".to_vec())));
        assert_eq!(decompressed(b"one\ntwo\n", 99), None);
        assert_eq!(decompressed(&zstd(&[7; 1_000]), 99), Some(Ok(vec![7; 99])), "no more than the limit");
    }
}
