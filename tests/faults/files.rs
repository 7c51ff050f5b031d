//! The database file: damaged, locked, of another version, used by two; and migrations that fail.

use std::{
    collections::BTreeMap,
    io::{Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use diesel::{
    Connection as _, QueryableByName, RunQueryDsl as _, SqliteConnection, connection::SimpleConnection as _, sql_query,
    sql_types::Text,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use serde_json::json;

use crate::{
    all_ran_once,
    gateway::{TestGateway, eventually, play, text, turn_id},
    healed, is_unavailable, not_ready,
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const PAGE: u64 = 4096;

fn file(server: &TestGateway) -> PathBuf {
    server.data_dir().join("greenroom.db")
}

fn open(server: &TestGateway) -> SqliteConnection {
    let mut connection = SqliteConnection::establish(file(server).to_str().unwrap()).unwrap();
    // The writer may still keep room after its log.
    connection.batch_execute("PRAGMA busy_timeout = 60000").unwrap();
    connection
}

/// Writes over pages of the file, from `from` to its end.
fn overwrite(server: &TestGateway, from: u64) {
    let mut file = std::fs::OpenOptions::new().write(true).open(file(server)).unwrap();
    let pages = file.metadata().unwrap().len() / PAGE;
    assert!(pages > from, "{pages} pages only");
    file.seek(SeekFrom::Start(from * PAGE)).unwrap();
    for _ in from..pages {
        file.write_all(&[0xa5; PAGE as usize]).unwrap();
    }
}

/// The one line that a start which was refused ends with.
fn last_line(said: &str) -> &str {
    said.trim_end().lines().last().unwrap_or_default()
}

#[tokio::test]
async fn what_is_no_database_stops_the_start() {
    let mut server = TestGateway::on_sqlite(&[]);
    server.run("k", text("lost")).await;
    assert!(server.stop().success());
    overwrite(&server, 0);
    let before = std::fs::read(file(&server)).unwrap();
    let (status, said) = server.refuses_to_start();
    assert_eq!(status, 1, "{said}");
    let line = last_line(&said);
    assert!(line.contains("not a database") && line.contains("restore a backup"), "{said}");
    assert_eq!(std::fs::read(file(&server)).unwrap(), before, "it was left as it is");
}

#[tokio::test]
async fn a_file_that_is_damaged_under_a_server_is_told_and_the_server_lives() {
    let mut server = TestGateway::on_sqlite(&[]);
    for _ in 0..4 {
        server.run("k", play(json!({"deltas": 100, "bytes": 10_000}))).await;
    }
    // A start has nothing in its caches.
    assert!(server.stop().success());
    server.restart();
    eventually("ready", async || (server.get("/ready").await.status == 200).then_some(())).await;
    overwrite(&server, 64);
    let read =
        || server.request("GET", "/v1/sessions/k/events?after=0&limit=1000").header("accept", "application/json");
    is_unavailable(&server.send(read()).await);
    let why = not_ready(&server).await;
    assert!(why.contains("damaged") && why.contains("restore a backup"), "{why}");
    assert_eq!(server.get("/health").await.ok(200)["ready"], false);
    // It does not heal by being asked again, and nobody is told that it has.
    is_unavailable(&server.send(read()).await);
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(server.log().matches("pool] the database is damaged").count(), 1, "told once");
    assert!(server.stop().success());
}

#[tokio::test]
async fn a_file_that_somebody_else_locks_is_waited_for_then_refused_and_heals() {
    let server = TestGateway::on_sqlite(&[]);
    server.run("k", text("before")).await;
    let mut other = open(&server);
    other.batch_execute("BEGIN IMMEDIATE").unwrap();
    let refused = server.post("/v1/sessions/k/messages", text("x")).await;
    is_unavailable(&refused);
    let why = not_ready(&server).await;
    assert!(why.contains("locked"), "{why}");
    assert_eq!(server.events("k").await.last().unwrap()["type"], "turn.finished", "reading goes on");
    other.batch_execute("ROLLBACK").unwrap();
    healed(&server).await;
    let turn = turn_id(&server.message("k", text("after")).await);
    all_ran_once(&server, "k", &[turn]).await;
    let queued = server.events("k").await.into_iter().filter(|event| event["type"] == "turn.queued").count();
    assert_eq!(queued, 2, "what was refused is not there");
}

#[tokio::test]
async fn a_second_server_on_one_file_does_not_start_and_the_first_goes_on() {
    let server = TestGateway::on_sqlite(&[]);
    let turn = server.hang("k", json!({})).await;
    let (status, said) = server.refuses_to_start();
    assert_eq!(status, 1, "{said}");
    assert!(last_line(&said).contains("another server is using this database"), "{said}");
    assert_eq!(server.turn("k", &turn).await["state"], "running");
    healed(&server).await;
}

#[tokio::test]
async fn a_newer_database_is_refused_and_left_alone() {
    let mut server = TestGateway::on_sqlite(&[]);
    server.run("k", text("kept")).await;
    assert!(server.stop().success());
    let future = "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')";
    open(&server).batch_execute(future).unwrap();
    let before = schema(&server);
    let (status, said) = server.refuses_to_start();
    assert_eq!(status, 1, "{said}");
    let line = last_line(&said);
    assert!(line.contains("newer version of greenroom") && line.contains("99991231"), "{said}");
    assert_eq!(schema(&server), before);
    open(&server).batch_execute("DELETE FROM __diesel_schema_migrations WHERE version = '99991231000000'").unwrap();
    server.restart();
    assert_eq!(server.snapshot("k").await["last_message_preview"], "kept");
}

#[derive(QueryableByName)]
struct Entry {
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Text)]
    sql: String,
}

/// All tables and indexes, and the migrations that were made.
fn schema(server: &TestGateway) -> BTreeMap<String, String> {
    let entries = "SELECT name, coalesce(sql, '') AS sql FROM sqlite_master UNION ALL \
                   SELECT version AS name, 'migration' AS sql FROM __diesel_schema_migrations";
    let entries: Vec<Entry> = sql_query(entries).load(&mut open(server)).unwrap();
    entries.into_iter().map(|entry| (entry.name, entry.sql)).collect()
}

#[tokio::test]
async fn migrations_that_fail_leave_the_database_as_it_was() {
    let mut server = TestGateway::on_sqlite(&[]);
    assert!(server.stop().success());
    // As an older program left it: without its last two migrations, and with something in the way of the last.
    let mut raw = open(&server);
    raw.revert_last_migration(MIGRATIONS).unwrap();
    let later = schema(&server);
    raw.revert_last_migration(MIGRATIONS).unwrap();
    raw.run_pending_migrations(MIGRATIONS).unwrap();
    let made: Vec<String> = schema(&server).into_keys().filter(|name| !later.contains_key(name)).collect();
    let table = made.iter().find(|name| !name.starts_with("20") && !name.starts_with("sqlite_")).unwrap();
    raw.revert_last_migration(MIGRATIONS).unwrap();
    raw.revert_last_migration(MIGRATIONS).unwrap();
    raw.batch_execute(&format!("CREATE TABLE {table} (in_the_way TEXT)")).unwrap();
    drop(raw);
    let before = schema(&server);
    let (status, said) = server.refuses_to_start();
    assert_eq!(status, 1, "{said}");
    let line = last_line(&said);
    assert!(line.contains("cannot be migrated, and was left as it was") && line.contains(table.as_str()), "{said}");
    assert_eq!(schema(&server), before, "nothing is half done");
    open(&server).batch_execute(&format!("DROP TABLE {table}")).unwrap();
    server.restart();
    eventually("ready", async || (server.get("/ready").await.status == 200).then_some(())).await;
}
