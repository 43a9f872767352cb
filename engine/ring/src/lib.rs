//! All lock-free code and every raw atomic: SPSC and broadcast rings of variable-length frames
