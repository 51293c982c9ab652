//! How long the parts of a change of master take: told to whoever measures, and never decided by.

/// What was timed. Every end and every beginning is by the operator's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Interval {
    /// From when the old master was last known to be well to the epoch of its failover.
    Detection,
    /// From that epoch to the first proof that the old master takes no writes; nothing where the
    /// death itself was the proof.
    Fence,
    /// From that epoch to the first write that the new master accepts.
    Failover,
    /// From when the old master was told to stop taking writes to the first write that the new one
    /// accepts.
    Switchover,
}
