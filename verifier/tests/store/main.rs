//! What a store promises, and what the SQLite one does with a damaged or foreign file.
//!
//! - [`contract`]: the suite that every back end passes, whole
//! - [`sqlite`]: the back end under test; files that are not ours; rows that no verb writes
//! - [`fixtures`]: machines, evidence, reference values to order
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod contract;
mod fixtures;
mod sqlite;
