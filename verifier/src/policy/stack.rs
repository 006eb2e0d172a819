//! A stack for what Cedar does with texts: its parser and its trees are recursive, by some kilobytes a level.

/// Enough for a policy of the longest that is one chain of operators: eight thousand levels, in a debug build 16 KB each.
/// It is address space; what is not used takes no memory.
pub(super) const FOR_ANY_POLICY: usize = 256 << 20;
/// Enough for policies of a bundle, which are no deeper than [`Bundle::MAX_DEPTH`](super::Bundle::MAX_DEPTH): 100 KB a level
/// where Cedar reads its JSON, in a debug build.
pub(super) const FOR_BOUNDED_POLICIES: usize = 16 << 20;

/// Runs on a stack of its own, whatever thread calls.
pub(super) fn on_stack_of<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    stacker::grow(bytes, work)
}
