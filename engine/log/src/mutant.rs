//! Bugs that can be planted, to check that the tests of crash states catch them.
//!
//! Each was made in a log of this kind: see `docs/log.md`.

/// One bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Records are reported as synced once they were written.
    AcknowledgeBeforeSync,
    /// A checksum does not cover the generation of the segment.
    ChecksumWithoutGeneration,
    /// A segment is created or removed, and its directory is not synced.
    ForgetDirectorySync,
    /// A damaged record ends the log, whatever follows it.
    CutAtFirstDamage,
    /// After a failed sync the log goes on.
    ContinueAfterFailedSync,
    /// What recovery has read from the kernel's pages counts as on disk.
    TrustPagesAtOpen,
    /// A log that is opened again writes on in its last segment, over what was cut.
    WriteOnAfterCut,
    /// A ledger hands out what is left of a damaged log.
    IgnoreDamage,
    /// A batch begins in the block in which the synced one before it ended.
    ShareBlockBetweenBatches,
}
