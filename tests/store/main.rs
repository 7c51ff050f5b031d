//! The store, on both databases: every case below runs on SQLite and on a Postgres that the tests start themselves.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

#[path = "../support/postgres.rs"]
mod postgres;

mod accounts;
mod build;
mod feed;
mod lists;
mod log;
mod migrations;
mod opening;
mod outage;
mod records;
mod retention;
mod webhooks;
mod writing;

use greenroom::{
    config::{Secret, StoreConfig},
    store::{Store, StoreError},
};

/// Which database a case runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// An empty database, gone with this value.
struct Database {
    kind: Kind,
    url: String,
    /// Holds the SQLite file.
    folder: tempfile::TempDir,
}

impl Database {
    fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = match kind {
            Kind::Sqlite => format!("sqlite:{}", folder.path().join("test.db").display()),
            Kind::Postgres => postgres::server().fresh_database(),
        };
        Self { kind, url, folder }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig { url: Some(Secret::new(&self.url)), ..StoreConfig::default() }
    }

    fn try_open(&self) -> Result<Store, StoreError> {
        Store::open(&self.config())
    }

    fn open(&self) -> Store {
        self.try_open().unwrap()
    }
}

fn run<F: Future<Output = ()>>(kind: Kind, case: impl FnOnce(Database) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(case(Database::new(kind)));
}

macro_rules! on_both {
    ($($module:ident :: $case:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $case() { super::run(super::Kind::Sqlite, super::$module::$case) })*
        }
        mod postgresql {
            $(#[test] fn $case() { super::run(super::Kind::Postgres, super::$module::$case) })*
        }
    };
}

on_both! {
    log::events_come_back_byte_for_byte,
    log::pages_are_bounded_by_count_and_bytes,
    log::a_cursor_beyond_the_end_gives_an_empty_page,
    log::an_append_at_the_wrong_place_is_fenced_and_writes_nothing,
    log::a_claim_fences_the_previous_owner,
    log::a_key_is_created_once,
    log::numbering_goes_on_after_a_delete,
    log::wrong_numbers_are_refused,
    feed::no_writer_is_overtaken,
    feed::a_cursor_goes_on_after_a_restart,
    feed::a_delete_leaves_one_mark,
    feed::who_may_not_see_a_session_sees_nothing_of_it,
    feed::pages_up_to_a_cursor_are_the_last_ones,
    records::a_session_comes_back_as_it_was_written,
    records::a_claim_brings_what_an_actor_needs,
    records::turns_keep_their_files_through_changes,
    records::a_choice_is_settled_once,
    records::a_reset_keeps_the_old_conversation_readable,
    records::a_delete_takes_everything_along,
    records::calls_are_remembered_for_a_day,
    records::processes_are_listed_until_they_end,
    records::nul_characters_are_stored,
    lists::sessions_are_paged_and_filtered,
    lists::messages_are_paged_in_the_order_of_writing,
    lists::messages_around_one,
    lists::turns_are_paged_and_filtered,
    lists::choices_are_listed_by_owner,
    accounts::tokens_come_back_and_end,
    accounts::organisations_have_members,
    accounts::the_audit_is_filtered,
    retention::the_progress_of_a_finished_turn_goes_and_the_rest_stays_as_it_was,
    retention::who_reads_the_feed_is_told_what_is_pruned,
    retention::a_session_that_is_deleted_meanwhile_comes_not_back,
    retention::two_servers_may_prune_at_once,
    retention::archived_sessions_are_listed_by_when_they_were_touched,
    retention::the_size_is_told_and_what_is_free_is_given_back,
    accounts::only_what_is_old_leaves_the_audit,
    webhooks::endpoints_come_back_as_they_were_written,
    webhooks::one_server_at_a_time_delivers_to_an_endpoint,
    webhooks::deliveries_are_written_with_their_append_or_not_at_all,
    webhooks::a_reply_has_the_final_text,
    writing::a_bad_job_fails_alone,
    writing::many_producers_at_once,
    writing::appends_of_one_key_may_be_sent_without_waiting,
    writing::a_dropped_store_has_written_everything,
    writing::nothing_is_taken_after_closing,
    migrations::up_down_up,
    migrations::a_newer_database_is_refused_and_left_alone,
}

/// An SQLite file is of one server alone.
#[test]
fn a_session_that_comes_over_is_followed_without_a_hole() {
    run(Kind::Postgres, feed::a_session_that_comes_over_is_followed_without_a_hole);
}
