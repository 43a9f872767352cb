//! A script of a hostile process's writes to its shared log, against a reader. The body is
//! `bourdon_ring::log::hostile`, which an ordinary test runs over the committed corpus as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bourdon_ring::log::hostile(data));
