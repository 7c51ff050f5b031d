//! Migrations: both ways, alike on both databases, never over a newer version.

use std::collections::BTreeSet;

use diesel::{
    Connection as _, PgConnection, QueryableByName, RunQueryDsl as _, SqliteConnection,
    connection::SimpleConnection as _,
    sql_query,
    sql_types::{Bool, Text},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use greenroom::store::StoreError;

use super::{Database, Kind};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

const OF_SQLITE: &str = "SELECT t.name AS table_name, c.name AS column_name, c.type AS kind, c.\"notnull\" = 0 AS nullable \
     FROM sqlite_master t JOIN pragma_table_info(t.name) c WHERE t.type = 'table'";
const OF_POSTGRES: &str = "SELECT table_name::text, column_name::text, data_type::text AS kind, \
     is_nullable = 'YES' AS nullable FROM information_schema.columns WHERE table_schema = 'public'";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, QueryableByName)]
struct Column {
    #[diesel(sql_type = Text)]
    table_name: String,
    #[diesel(sql_type = Text)]
    column_name: String,
    #[diesel(sql_type = Text)]
    kind: String,
    #[diesel(sql_type = Bool)]
    nullable: bool,
}

enum Raw {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Raw {
    fn connect(db: &Database) -> Self {
        match db.kind {
            Kind::Sqlite => Self::Sqlite(SqliteConnection::establish(db.url.trim_start_matches("sqlite:")).unwrap()),
            Kind::Postgres => Self::Postgres(PgConnection::establish(&db.url).unwrap()),
        }
    }

    fn up(&mut self) {
        match self {
            Self::Sqlite(c) => c.run_pending_migrations(SQLITE).map(drop).unwrap(),
            Self::Postgres(c) => c.run_pending_migrations(POSTGRES).map(drop).unwrap(),
        }
    }

    fn down(&mut self) {
        match self {
            Self::Sqlite(c) => c.revert_all_migrations(SQLITE).map(drop).unwrap(),
            Self::Postgres(c) => c.revert_all_migrations(POSTGRES).map(drop).unwrap(),
        }
    }

    fn execute(&mut self, sql: &str) {
        match self {
            Self::Sqlite(c) => c.batch_execute(sql).unwrap(),
            Self::Postgres(c) => c.batch_execute(sql).unwrap(),
        }
    }

    fn columns(&mut self) -> BTreeSet<Column> {
        let columns: Vec<Column> = match self {
            Self::Sqlite(c) => sql_query(OF_SQLITE).load(c).unwrap(),
            Self::Postgres(c) => sql_query(OF_POSTGRES).load(c).unwrap(),
        };
        let ours = columns.into_iter().filter(|column| !column.table_name.starts_with("__"));
        ours.map(|column| {
            // SQLite's word for a key that is the row's own number, which has 64 bits.
            let number = column.column_name == "position";
            let kind = if number { "bigint".to_owned() } else { column.kind.to_lowercase() };
            Column { kind, ..column }
        })
        .collect()
    }
}

pub async fn up_down_up(db: Database) {
    let mut raw = Raw::connect(&db);
    raw.up();
    let first = raw.columns();
    assert!(first.len() > 50);
    raw.down();
    assert_eq!(raw.columns(), BTreeSet::new());
    raw.up();
    assert_eq!(raw.columns(), first);
    drop(raw);
    db.open().health().await.unwrap();
}

/// The tables as the program believes them to be.
fn schema() -> BTreeSet<Column> {
    let (mut columns, mut table) = (BTreeSet::new(), String::new());
    for line in include_str!("../../src/store/schema.rs").lines() {
        if let Some((name, kind)) = line.trim().trim_end_matches(',').split_once(" -> ") {
            let inner = kind.trim_start_matches("Nullable<").trim_end_matches('>');
            let sql = match inner {
                "Bool" => "boolean".to_owned(),
                "Double" => "double precision".to_owned(),
                other => other.to_lowercase(),
            };
            let nullable = inner != kind;
            columns.insert(Column { table_name: table.clone(), column_name: name.into(), kind: sql, nullable });
        } else if let Some((name, rest)) = line.trim().split_once(" (")
            && rest.ends_with('{')
        {
            table = name.to_owned();
        }
    }
    columns
}

#[test]
fn both_databases_have_the_tables_that_the_program_knows() {
    let columns = |kind| {
        let db = Database::new(kind);
        let mut raw = Raw::connect(&db);
        raw.up();
        raw.columns()
    };
    assert_eq!(columns(Kind::Sqlite), schema());
    assert_eq!(columns(Kind::Postgres), schema());
}

#[test]
fn both_folders_have_the_same_migrations() {
    let names = |database: &str| -> BTreeSet<_> {
        let folder = format!("{}/migrations/{database}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names("sqlite"), names("postgres"));
}

pub async fn a_newer_database_is_refused_and_left_alone(db: Database) {
    db.open().flush_and_close().await;
    let mut raw = Raw::connect(&db);
    raw.execute("ALTER TABLE processes ADD COLUMN future TEXT");
    raw.execute("INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')");
    let before = raw.columns();
    match db.try_open().map(drop) {
        Err(StoreError::Setup(text)) => assert!(text.contains("newer version") && text.contains("99991231"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(raw.columns(), before);
}
