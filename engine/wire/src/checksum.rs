//! CRC32C, the checksum of a datagram.
//!
//! Every datagram is summed at its sender and at each receiver, so the sum is the largest single step of its way. The
//! processor's instruction gives its result after three cycles and can begin another in each of them; so a full
//! datagram is cut into three lanes that are summed side by side, and a table joins the sums. Three lanes are 1,344
//! bytes: a datagram of the default MTU but for 56, and longer ones are a few times that and a rest. A lone message's
//! datagram is summed word by word. What lies in between, and processors without the instruction, have the library's
//! ways.
//!
//! Invariant: every way gives the same sum for every input.

#[cfg(not(target_arch = "x86_64"))]
pub(crate) use crc32c::crc32c;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::crc32c;

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u64};

    const WORD_BYTES: usize = 8;
    /// Words summed in each lane before the loop goes on.
    const STRIDE_WORDS: usize = 8;
    const LANE_WORDS: usize = 56;
    const LANES_WORDS: usize = 3 * LANE_WORDS;
    const LANES_BYTES: usize = LANES_WORDS * WORD_BYTES;
    const _: () = assert!(LANE_WORDS.is_multiple_of(STRIDE_WORDS));
    /// From here on the library's lanes, of 256 bytes, are faster than no lanes.
    const SHORT_END_BYTES: usize = 768;

    #[inline(always)] // a lone message's sum is three times as long as this
    pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
        match fearless_simd::Level::new().as_sse4_2() {
            Some(sse4_2) if bytes.len() < SHORT_END_BYTES => short(sse4_2, u32::MAX, bytes),
            Some(sse4_2) if bytes.len() >= LANES_BYTES => long(sse4_2, bytes),
            _ => ::crc32c::crc32c(bytes),
        }
    }

    fearless_simd::kernel!(
        #[inline(always)]
        fn short(sse4_2: Sse4_2, register: u32, bytes: &[u8]) -> u32 {
            let (words, rest) = bytes.as_chunks::<WORD_BYTES>();
            let mut register = u64::from(register);
            for word in words {
                register = _mm_crc32_u64(register, u64::from_le_bytes(*word));
            }
            !rest.iter().fold(register as u32, |register, byte| _mm_crc32_u8(register, *byte))
        }
    );

    fearless_simd::kernel!(
        #[inline(always)]
        fn long(sse4_2: Sse4_2, bytes: &[u8]) -> u32 {
            let (words, _) = bytes.as_chunks::<WORD_BYTES>();
            let (groups, _) = words.as_chunks::<LANES_WORDS>();
            let mut register = u32::MAX;
            for group in groups {
                let mut lanes = [u64::from(register), 0, 0];
                for stride in 0..LANE_WORDS / STRIDE_WORDS {
                    for word in 0..STRIDE_WORDS {
                        let index = stride * STRIDE_WORDS + word;
                        lanes[0] = _mm_crc32_u64(lanes[0], u64::from_le_bytes(group[index]));
                        lanes[1] = _mm_crc32_u64(lanes[1], u64::from_le_bytes(group[LANE_WORDS + index]));
                        lanes[2] = _mm_crc32_u64(lanes[2], u64::from_le_bytes(group[2 * LANE_WORDS + index]));
                    }
                }
                register = across_lane(across_lane(lanes[0] as u32) ^ lanes[1] as u32) ^ lanes[2] as u32;
            }
            let rest = &bytes[groups.len() * LANES_BYTES..];
            if rest.len() < SHORT_END_BYTES {
                short(sse4_2, register, rest)
            } else {
                ::crc32c::crc32c_append(!register, rest)
            }
        }
    );

    /// The register after a lane of zeroes.
    #[inline]
    fn across_lane(register: u32) -> u32 {
        let [a, b, c, d] = register.to_le_bytes().map(usize::from);
        ACROSS_LANE[0][a] ^ ACROSS_LANE[1][b] ^ ACROSS_LANE[2][c] ^ ACROSS_LANE[3][d]
    }

    /// By byte of the register and its value: the register after a lane of zeroes. It is linear in the register's bits.
    static ACROSS_LANE: [[u32; 256]; 4] = {
        let mut table = [[0; 256]; 4];
        let mut byte = 0;
        while byte < 4 {
            let mut value = 1_usize;
            while value < 256 {
                let others = value & (value - 1);
                table[byte][value] = if others == 0 {
                    after_zeroes((value as u32) << (8 * byte), LANE_WORDS * WORD_BYTES)
                } else {
                    table[byte][others] ^ table[byte][value ^ others]
                };
                value += 1;
            }
            byte += 1;
        }
        table
    };

    const fn after_zeroes(mut register: u32, bytes: usize) -> u32 {
        const POLYNOMIAL: u32 = 0x82F6_3B78; // Castagnoli's, its bits reversed
        let mut bit = 0;
        while bit < 8 * bytes {
            register = register >> 1 ^ if register & 1 == 1 { POLYNOMIAL } else { 0 };
            bit += 1;
        }
        register
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_length_have_the_sum_that_the_library_gives() {
        let bytes: [u8; 9000] = core::array::from_fn(|index| (index * 151 % 251 + index / 7) as u8);
        for end in (5..3000).chain(8000..bytes.len()) {
            for start in [0, 1, 5] {
                let bytes = &bytes[start..end];
                assert_eq!(crc32c(bytes), ::crc32c::crc32c(bytes), "bytes {start} to {end}");
            }
        }
    }
}
