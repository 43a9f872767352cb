//! Any bytes as a datagram: walked to the end, or refused. The body is `bourdon_sim::hostile::datagram`, which an
//! ordinary test runs over the committed corpus as well.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bourdon_sim::hostile::datagram(data));
