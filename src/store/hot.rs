//! The updates that every turn makes, as statements of a fixed text.
//!
//! diesel prepares an `UPDATE` anew each time, because the columns that it sets could differ from call to call. These
//! never do, so they have an id of their own and stay prepared. A profile of sends had SQLite's parser at the top.

use diesel::{
    QueryResult, RunQueryDsl,
    backend::Backend,
    query_builder::{AstPass, QueryFragment, QueryId},
    serialize::ToSql,
    sql_types::{BigInt, Bool, Nullable, Text},
};

/// A statement: its pieces of SQL, each followed by a parameter.
macro_rules! statement {
    ($(#[$doc:meta])* $name:ident { $($sql:literal $field:ident: $rust:ty => $kind:ty,)+ }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub(super) struct $name {
            $(pub(super) $field: $rust,)+
        }

        impl<DB> QueryFragment<DB> for $name
        where
            DB: Backend,
            String: ToSql<Text, DB>,
            i64: ToSql<BigInt, DB>,
            bool: ToSql<Bool, DB>,
            Option<String>: ToSql<Nullable<Text>, DB>,
            Option<i64>: ToSql<Nullable<BigInt>, DB>,
            DB: diesel::sql_types::HasSqlType<Text>
                + diesel::sql_types::HasSqlType<BigInt>
                + diesel::sql_types::HasSqlType<Bool>
                + diesel::sql_types::HasSqlType<Nullable<Text>>
                + diesel::sql_types::HasSqlType<Nullable<BigInt>>,
        {
            fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
                $(
                    out.push_sql($sql);
                    out.push_bind_param::<$kind, _>(&self.$field)?;
                )+
                Ok(())
            }
        }

        impl QueryId for $name {
            type QueryId = Self;
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl<C> RunQueryDsl<C> for $name {}
    };
}

statement! {
    /// The compare-and-set of a log.
    Advance {
        "UPDATE logs SET last_seq = " last_seq: i64 => BigInt,
        " WHERE key = " key: String => Text,
        " AND epoch = " epoch: i64 => BigInt,
        " AND last_seq = " expected_seq: i64 => BigInt,
    }
}

statement! {
    /// What changes in `sessions` with every turn.
    TouchSession {
        "UPDATE sessions SET updated_at = " updated_at: i64 => BigInt,
        ", last_active_at = " last_active_at: i64 => BigInt,
        ", message_count = " message_count: i64 => BigInt,
        ", last_message_preview = " last_message_preview: Option<String> => Nullable<Text>,
        ", busy = " busy: bool => Bool,
        ", queue_depth = " queue_depth: i64 => BigInt,
        ", agent_status = " agent_status: String => Text,
        ", usage = " usage: String => Text,
        " WHERE id = " id: String => Text,
        " AND key = " key: String => Text,
    }
}

statement! {
    /// What changes in `turns` while a turn goes its way.
    AdvanceTurn {
        "UPDATE turns SET session_id = " session_id: String => Text,
        ", agent = " agent: String => Text,
        ", model = " model: Option<String> => Nullable<Text>,
        ", state = " state: String => Text,
        ", unfinished = " unfinished: bool => Bool,
        ", started_at = " started_at: Option<i64> => Nullable<BigInt>,
        ", finished_at = " finished_at: Option<i64> => Nullable<BigInt>,
        ", error = " error: Option<String> => Nullable<Text>,
        ", reason = " reason: Option<String> => Nullable<Text>,
        ", summary = " summary: Option<String> => Nullable<Text>,
        ", usage = " usage: String => Text,
        ", rank = " rank: i64 => BigInt,
        ", first_seq = " first_seq: i64 => BigInt,
        ", steers = " steers: Option<String> => Nullable<Text>,
        " WHERE id = " id: String => Text,
        " AND key = " key: String => Text,
    }
}
