//! Test equipment that knows both sides: TPMs of software, and the journeys and attacks in `tests/`.

pub mod software_tpm;
