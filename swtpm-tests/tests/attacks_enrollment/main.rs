//! Attacks on enrolment, tried on a verifier that runs. After each: it is refused for a reason of its own, the refusal is
//! on record, and a healthy node that stood by is as it was ([`Watch`](rootbound_swtpm_tests::watch::Watch)).
//!
//! | # | attack | tests |
//! |---|---|---|
//! | 1 | EK public differs from the EK certificate's key | `endorsement::certificate_of_another_tpm_endorses_nothing` |
//! | 6 | EK certificate self-signed, or from an unknown root | `endorsement::each_flaw_of_a_chain_is_refused_for_its_own_reason` |
//! | 7 | expired, not yet valid, leaf as CA, EKU, path length, wrong signature, gap, loop | the same |
//! | 8 | revoked leaf or intermediate, CRL missing, overdue or forged | `endorsement::revoked_and_unknown_to_be_revoked_are_refused` |
//! | 9 | filler around a certificate, leaf at any position | `endorsement::each_flaw_of_a_chain_is_refused_for_its_own_reason` |
//! | 10 | genuine EK of a machine that is not ours | `endorsement::genuine_tpm_that_nobody_expects_waits_and_gets_no_challenge` |
//! | 11 | EK certificate that does not match the TPM | `endorsement::certificate_of_another_tpm_endorses_nothing` |

mod endorsement;
