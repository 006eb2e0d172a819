//! The contract of a store: what every back end has to pass, whole.
//!
//! One file per subject, as the traits have it. A back end implements [`BackEnd`] and invokes [`suite`].

pub(crate) mod audit;
pub(crate) mod challenges;
pub(crate) mod decisions;
pub(crate) mod digest_sets;
pub(crate) mod durability;
pub(crate) mod enrollments;
pub(crate) mod evidence;
pub(crate) mod fleet;
pub(crate) mod holds;
pub(crate) mod inventory;
pub(crate) mod join_tokens;
pub(crate) mod logs;
pub(crate) mod nodes;
pub(crate) mod policies;
pub(crate) mod reenrollments;
pub(crate) mod references;
pub(crate) mod sets;
pub(crate) mod tokens;

use std::sync::Arc;

use rootbound_verifier::store::Store;

/// A back end under test: one empty database of its own, gone when it is dropped.
pub(crate) trait BackEnd: Sized {
    /// A new, empty one.
    async fn new() -> Self;

    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// What another process finds if this one is killed at this very moment.
    async fn after_a_kill(&self) -> Self;
}

/// The tests of the suite, for one back end.
macro_rules! suite {
    ($back_end:ty) => {
        $crate::contract::tests! { $back_end:
            challenges {
                challenge_is_spent_once,
                of_many_who_spend_one_challenge_at_once_one_gets_the_receipt,
                spent_challenges_are_forgotten_when_they_are_refused_as_expired_anyway,
            }
            enrollments {
                pending_enrollment_comes_back_as_it_was_and_once,
                of_many_who_take_one_enrollment_at_once_one_gets_it,
                only_so_many_enrollments_wait_and_expired_ones_do_not_count,
                of_one_ek_only_some_enrollments_wait_and_the_eldest_gives_way,
                of_many_who_begin_at_once_no_more_than_the_limit_wait,
                pending_enrollments_are_forgotten_past_their_deadline,
                machine_that_nobody_knows_waits_for_an_operator,
                machine_in_the_inventory_is_admitted_with_its_labels,
                join_token_admits_once_with_its_labels,
                join_token_that_is_bound_admits_its_machine,
                refused_join_token_changes_nothing,
                of_many_who_redeem_one_join_token_at_once_one_is_enrolled,
                attestation_key_of_another_node_is_refused_and_nothing_changes,
                attestation_key_that_was_superseded_is_free,
                of_many_nodes_with_one_attestation_key_at_once_one_is_enrolled,
                labels_of_a_pending_node_are_joined_with_those_of_its_admission,
                labels_over_the_limit_leave_the_join_token_unused,
                endorsement_by_a_vendor_comes_back_as_it_was,
            }
            reenrollments {
                same_key_keeps_everything,
                another_key_supersedes_at_once_and_keeps_the_clock,
                return_to_an_old_key_revives_nothing,
                retired_node_is_refused_and_nothing_changes,
                admitted_node_stays_admitted_and_needs_no_token,
                new_endorsement_replaces_the_old,
            }
            nodes {
                nodes_come_in_pages_by_rising_id,
                pending_node_is_approved_once,
                retired_node_that_is_approved_starts_anew,
                node_is_retired_once,
                labels_are_set_and_taken_away,
                labels_are_bounded_by_what_comes_out,
                of_many_changes_at_once_none_is_lost,
                live_view_of_one_node_is_that_of_all,
                live_view_has_the_credentials_that_have_not_expired,
            }
            evidence {
                evidence_is_recorded_whole_and_counts_the_revision_up,
                every_clock_comes_back_as_it_was,
                evidence_on_a_stale_revision_writes_nothing,
                of_many_pieces_of_evidence_on_one_revision_one_is_recorded,
                serial_number_that_was_used_writes_nothing,
                reappraisal_changes_the_posture_and_the_revision,
                reappraisal_on_a_stale_revision_or_without_evidence_writes_nothing,
                certificate_that_is_withdrawn_is_listed_and_does_not_count,
                certificates_are_listed_until_they_are_forgotten,
            }
            fleet {
                kept_evidence_comes_in_pages_with_nodes_that_have_none,
                short_lists_come_with_the_page_and_long_ones_do_not,
            }
            logs {
                logs_come_back_as_they_were,
                frames_are_kept_in_order_until_a_quote_covers_them,
                logs_of_another_boot_or_attestation_key_are_gone,
                evidence_on_a_stale_revision_leaves_the_logs,
            }
            digest_sets {
                versions_count_up_and_share_their_content,
                book_has_current_sets_and_takes_what_it_has_from_the_one_before,
                withdrawn_digest_set_leaves_the_book_and_stays_listed,
                texts_that_share_most_lines_come_back_as_they_were,
            }
            references {
                versions_count_up_and_never_change,
                book_has_the_current_versions,
                withdrawn_set_leaves_the_book_and_stays_listed,
                of_many_versions_written_at_once_each_has_its_number,
                profile_that_checks_nothing_is_not_written,
            }
            sets {
                boot_sets_are_written_listed_and_withdrawn,
                update_is_staged_promoted_and_what_was_before_is_gone,
                update_that_is_taken_back_leaves_what_was_before,
                update_that_another_version_overtook_is_none,
                of_many_steps_at_once_one_wins_and_the_others_are_told,
                sets_of_every_kind_are_written_together,
                documents_do_not_go_back_in_time,
                deny_list_has_versions_of_which_the_last_is_in_force,
            }
            policies {
                bundles_come_back_as_they_were_in_versions_that_count_up,
                bundle_is_in_force_until_another_is,
                activation_over_another_than_the_last_changes_nothing,
                of_many_activations_at_once_one_wins_and_the_others_are_told,
            }
            inventory {
                entries_are_put_replaced_listed_and_removed,
                node_stays_enrolled_when_its_entry_is_removed,
            }
            join_tokens {
                tokens_are_listed_the_latest_first,
                token_is_written_unused,
                token_is_named_and_shown_once,
                only_an_unused_token_is_revoked,
            }
            tokens {
                tokens_are_listed_by_what_they_are_the_newest_first,
                revoked_tokens_stay_so_over_a_kill_until_they_expire,
                token_for_one_use_is_used_once,
            }
            decisions {
                decisions_come_the_latest_first,
                decision_is_recorded_as_it_is,
                decision_is_recorded_once,
                decisions_are_forgotten_by_age,
                flood_of_refusals_pushes_out_older_refusals_and_nothing_else,
            }
            audit {
                records_form_one_chain,
                records_of_many_at_once_form_one_chain,
                large_append_is_whole,
                every_decision_is_a_record_of_the_same_id,
                what_an_administrator_does_is_recorded_with_it,
                record_is_found_by_its_id,
                records_come_the_latest_first_as_they_are_wanted,
                search_is_bounded_and_goes_on,
                checkpoints_are_of_the_trail_and_come_in_order,
                archived_segments_go_and_the_rest_verifies,
                trail_survives_a_kill_under_load,
            }
            holds {
                hold_stands_until_it_is_lifted_and_its_history_stays,
                source_lifts_its_own_holds_and_an_operator_any,
                holds_of_one_source_are_bounded,
                hold_that_has_expired_ends_as_a_demand_for_evidence,
                hold_outlives_evidence_enrolment_and_a_kill,
                signal_takes_effect_once,
                of_many_equal_signals_at_once_one_takes_effect,
            }
            durability {
                what_was_acknowledged_survives_a_kill,
                spent_challenges_survive_a_kill_under_load,
            }
        }
    };
}
pub(crate) use suite;

macro_rules! tests {
    ($back_end:ty: $($subject:ident { $($test:ident,)* })*) => {
        $(mod $subject {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let back_end = <$back_end as $crate::contract::BackEnd>::new().await;
                $crate::contract::$subject::$test(&back_end).await;
            })*
        })*
    };
}
pub(crate) use tests;
