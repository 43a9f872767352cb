//! All tests of this folder, in one program: it is built and linked once.

mod faults;
mod harmless;
mod memory;
