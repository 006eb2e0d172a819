//! The edge under attack: a whole server in this process, on a SQLite store of its own, and clients that do not behave.
//!
//! - [`stage`]: verifier, server, clock; [`pki`]: certificates of our CA and of others; [`client`]: HTTP over TLS by hand
//! - [`requests`]: bodies, routes, methods, rates, refusals
//! - [`connections`]: TLS versions, resumption, client certificates, slow and silent clients, limits
//! - [`admission`]: who may call which route, judged live
//! - [`results`]: who may read attestation results, and what they say
//! - [`enforce`]: gateways, and whether a request may pass
//! - [`authzen`]: the Authorization API, by its certification scenario and beyond
//! - [`oauth`]: tokens, who gets them and what they are worth
//! - [`administration`]: the Unix socket and the command line; [`survey`]: questions over the fleet, asked by it
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what fails in a test fails the test"
)]

mod administration;
mod admission;
mod authzen;
mod client;
mod connections;
mod control;
mod enforce;
mod jobs;
mod oauth;
mod pki;
mod requests;
mod results;
mod sets;
mod stage;
mod survey;
mod tokens;
mod trail;
