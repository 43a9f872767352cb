//! A script of strangers' datagrams against a client. The body is `bourdon_sim::hostile::client`, which an ordinary
//! test runs over the committed corpus as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bourdon_sim::hostile::client(data));
