//! Reference values out of files, before anything of them has booted: what firmware, boot loaders and the kernel will
//! measure of them.
//!
//! This reads what others made: every size, count and depth is bounded before work, and what is wrong with a file is said with
//! its name and the offset. Nothing is mounted, executed or written.

#![forbid(unsafe_code)]

pub mod boot;
pub mod files;
pub mod values;
