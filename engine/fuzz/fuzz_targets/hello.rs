//! A script of what a hostile process sends when it introduces itself over shared memory. The body is
//! `bourdon_shm::hostile`, which an ordinary test runs over the committed corpus as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bourdon_shm::hostile(data));
