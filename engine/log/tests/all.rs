//! All tests of this folder, in one program: it is built and linked once.

mod crash;
mod damage;
mod directory;
mod format;
mod ledger;
