//! Attacks on enrolment, tried on a verifier that runs. After each: it is refused for a reason of its own, the refusal is
//! on record, and a healthy node that stood by is as it was ([`Watch`](rootbound_swtpm_tests::watch::Watch)).
//!
//! | # | attack | tests |
//! |---|---|---|
//! | 1 | EK public differs from the EK certificate's key | `endorsement::certificate_of_another_tpm_endorses_nothing` |
//! | 2 | AK without `restricted` | `attestation_key::{keys_that_could_sign_forgeries_are_refused, quote_that_no_tpm_made_is_signed_by_no_ak}` |
//! | 3 | AK that is exportable, or was made elsewhere | `attestation_key::keys_that_could_sign_forgeries_are_refused` |
//! | 4 | AK that decrypts, is too small, uses SHA-1 or any scheme | the same |
//! | 5 | AK of the challenge differs from the one that is enrolled | `attestation_key::credential_for_one_ak_enrols_no_other` |
//! | 6 | EK certificate self-signed, or from an unknown root | `endorsement::each_flaw_of_a_chain_is_refused_for_its_own_reason` |
//! | 7 | expired, not yet valid, leaf as CA, EKU, path length, wrong signature, gap, loop | the same |
//! | 8 | revoked leaf or intermediate, CRL missing, overdue or forged | `endorsement::revoked_and_unknown_to_be_revoked_are_refused` |
//! | 9 | filler around a certificate, leaf at any position | `endorsement::each_flaw_of_a_chain_is_refused_for_its_own_reason` |
//! | 10 | genuine EK of a machine that is not ours | `endorsement::genuine_tpm_that_nobody_expects_waits_and_gets_no_challenge` |
//! | 11 | EK certificate that does not match the TPM | `endorsement::certificate_of_another_tpm_endorses_nothing` |
//! | 12 | AK record changed between check and use | `admission::evidence_of_an_ak_that_was_replaced_meanwhile_is_refused` |
//! | 13 | a known id with another TPM, also at once | `admission::{id_of_a_node_is_of_no_use_to_another_tpm, of_two_reenrollments_at_once_one_ak_is_enrolled_and_works}` |
//! | 14 | one TPM under a second id, clones, evasion of a ban | `admission::second_ek_of_a_tpm_inherits_nothing_and_brings_no_ak_along` |
//! | 15 | wrong activation secret | `admission::wrong_secret_spends_the_attempt_and_tells_nothing` |
//! | 16 | secret replayed, expired, of another enrolment; join token twice at once, bound, expired, revoked | `admission::{secret_is_good_once_in_time_and_for_its_own_enrollment, join_token_admits_the_one_that_it_is_for_once}` |
//! | 17 | ECC points and RSA moduli that are no keys | `attestation_key::numbers_that_are_no_key_are_refused` |
//! | 18 | TPM2_Certify statements | `attestation_key::{statement_about_something_else_certifies_no_key, malformed_statement_certifies_no_key_however_well_signed}` |
//! | 19 | ids with newline, ANSI, path or Unicode tricks | `intake::{texts_with_tricks_are_refused_and_not_repeated, commands_with_tricks_are_refused_and_not_repeated}` |
//! | 20 | flood, oversize fields, unbounded state | `intake::{flood_of_enrollments_is_bounded_and_forgotten, one_address_enrols_so_often_and_no_more, oversize_messages_are_turned_away_before_they_cost_anything}` |

mod admission;
mod attestation_key;
mod endorsement;
mod intake;
