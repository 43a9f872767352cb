//! Instruction-count gates over an in-memory port
