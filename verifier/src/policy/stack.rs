//! A stack for what Cedar does with texts: its parser and its trees are recursive, by some kilobytes a level.

/// Enough for a policy of the longest that is one chain of operators: eight thousand levels, in a debug build 16 KB each.
/// It is address space; what is not used takes no memory.
const BYTES: usize = 256 << 20;

/// Runs on a stack of its own, whatever thread calls.
pub(super) fn on_large_stack<R>(work: impl FnOnce() -> R) -> R {
    stacker::grow(BYTES, work)
}
