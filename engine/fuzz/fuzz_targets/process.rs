//! A script of strangers' datagrams against a member or an observer. The body is `bourdon_sim::hostile::process`, which
//! an ordinary test runs over the committed corpus as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bourdon_sim::hostile::process(data));
