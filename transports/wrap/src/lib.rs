//! Seeded loss, duplication, reordering and delay around any transport
