//! Bourdon: ordered, reliable group communication; the public Rust API
