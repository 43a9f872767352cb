//! A deterministic world for the shipped protocol code: seeded clock, network and checkers
