//! The verifier: checks what machines prove with their TPMs, and only then issues credentials that their TPMs hold.
//!
//! The road has one direction, held by types: bytes → parsed → [`evidence::Authenticated`] → [`appraisal::Appraisal`]
//! → [`policy::Grant`] → [`credential`]. Everything on it is pure: no I/O, no clock, no randomness of its own, no
//! `async`. [`flows`] tells the stories and alone holds a [`store`] and the road. `docs/ARCHITECTURE.md` has the map.
#![forbid(unsafe_code)]

pub mod appraisal;
pub mod attestation_result;
pub mod audit;
pub mod challenge;
pub mod cli;
pub mod config;
pub mod credential;
pub mod enrollment;
pub mod evidence;
pub mod flows;
pub mod hold;
pub mod http;
pub mod jobs;
pub mod node;
pub mod policy;
pub mod posture;
pub mod public_url;
pub mod reference;
pub mod relying_party;
pub mod store;
pub mod telemetry;
pub mod token;
