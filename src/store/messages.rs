//! Messages: the transcripts.

use diesel::prelude::*;

use super::{
    MessageWrite, Page, Paged, Store, StoreError,
    codec::{from_json, from_name, optional_text, parse, parse_optional, signed, to_json, to_name},
    connection::{AnyConnection, at_one_moment, each},
    fault::Fault,
    page::{Walk, walk},
    schema::{messages, sessions},
};
use crate::{
    ids::{MessageId, SessionId, SessionKey, TurnId},
    protocol::Message,
    timestamp::Timestamp,
};

/// A row of `messages`.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = messages, treat_none_as_default_value = false)]
pub(super) struct MessageRow {
    id: String,
    session_id: String,
    ordinal: i64,
    role: String,
    parts: String,
    turn_id: Option<String>,
    agent: Option<String>,
    client_id: Option<String>,
    created_at: i64,
}

impl MessageRow {
    /// The row of a message at a place in its conversation.
    pub(super) fn new(write: &MessageWrite) -> Result<Self, Fault> {
        let message = &write.message;
        Ok(Self {
            id: message.id.to_string(),
            session_id: write.conversation.to_string(),
            ordinal: signed(write.ordinal),
            role: to_name(&message.role)?,
            parts: to_json(&message.parts)?,
            turn_id: message.turn_id.map(|id| id.to_string()),
            agent: optional_text(message.agent.as_ref()),
            client_id: optional_text(message.client_id.as_ref()),
            created_at: message.created_at.0,
        })
    }

    fn read(self) -> Result<Message, Fault> {
        Ok(Message {
            id: parse("messages.id", &self.id)?,
            role: from_name("messages.role", &self.role)?,
            parts: from_json("messages.parts", &self.parts)?,
            turn_id: parse_optional("messages.turn_id", self.turn_id.as_deref())?,
            agent: self.agent,
            client_id: self.client_id,
            created_at: Timestamp(self.created_at),
        })
    }
}

/// Adds a message to its conversation.
pub(super) fn insert(connection: &mut AnyConnection, write: &MessageWrite) -> Result<(), Fault> {
    let row = MessageRow::new(write)?;
    each!(connection, c => diesel::insert_into(messages::table).values(row).execute(c))?;
    Ok(())
}

fn ordinal(connection: &mut AnyConnection, session: &str, id: &str) -> Result<Option<i64>, Fault> {
    let query = messages::table.filter(messages::id.eq(id)).filter(messages::session_id.eq(session));
    Ok(query.select(messages::ordinal).first(connection).optional()?)
}

fn list(connection: &mut AnyConnection, session: &str, page: &Page) -> Result<Paged<Message>, Fault> {
    let mut cursors = [None, None];
    for (found, wanted) in cursors.iter_mut().zip([&page.after, &page.before]) {
        if let Some(id) = wanted {
            *found = ordinal(connection, session, id)?;
            if found.is_none() {
                return Ok(Paged { data: Vec::new(), has_more: false });
            }
        }
    }
    let [after, before] = cursors;
    let walk = Walk::new(page, after, before);
    let query = messages::table.filter(messages::session_id.eq(session)).select(MessageRow::as_select()).into_boxed();
    let rows = walk!(query, walk, messages::ordinal).load(connection)?;
    walk.finish(rows, MessageRow::read)
}

fn around(
    connection: &mut AnyConnection,
    session: &str,
    id: &str,
    limit: u32,
) -> Result<Option<Paged<Message>>, Fault> {
    let Some(middle) = ordinal(connection, session, id)? else { return Ok(None) };
    let before = i64::from(limit.saturating_sub(1) / 2);
    let after = i64::from(limit) - before;
    let of_session = || messages::table.filter(messages::session_id.eq(session)).select(MessageRow::as_select());
    // One row more on either side tells whether something is left out there.
    let mut older: Vec<MessageRow> = of_session()
        .filter(messages::ordinal.lt(middle))
        .order(messages::ordinal.desc())
        .limit(before + 1)
        .load(connection)?;
    let mut rest: Vec<MessageRow> = of_session()
        .filter(messages::ordinal.ge(middle))
        .order(messages::ordinal.asc())
        .limit(after + 1)
        .load(connection)?;
    let length = |n: i64| usize::try_from(n).unwrap_or(usize::MAX);
    let has_more = older.len() > length(before) || rest.len() > length(after);
    older.truncate(length(before));
    rest.truncate(length(after));
    let data = older.into_iter().rev().chain(rest).map(MessageRow::read).collect::<Result<_, Fault>>()?;
    Ok(Some(Paged { data, has_more }))
}

fn of_turn(connection: &mut AnyConnection, session: SessionId, turn: TurnId) -> Result<Vec<Message>, Fault> {
    let rows = messages::table
        .filter(messages::session_id.eq(session.to_string()))
        .filter(messages::turn_id.eq(turn.to_string()))
        .order(messages::ordinal.asc())
        .select(MessageRow::as_select())
        .load(connection)?;
    rows.into_iter().map(MessageRow::read).collect()
}

/// The final assistant text of a turn; empty when there is none.
pub(super) fn response(connection: &mut AnyConnection, session: SessionId, turn: TurnId) -> Result<String, Fault> {
    Ok(Message::response(&of_turn(connection, session, turn)?))
}

impl Store {
    /// A page of a conversation, in the order in which its messages were written; their ids are the cursors. A cursor
    /// that is no message of it gives an empty page.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn messages(&self, session: SessionId, page: &Page) -> Result<Paged<Message>, StoreError> {
        let (session, page) = (session.to_string(), page.clone());
        self.read(move |connection| at_one_moment(connection, |connection| list(connection, &session, &page))).await
    }

    /// At most `limit` messages around one, itself included, oldest first. `has_more`: something is left out on
    /// either side. None when it is no message of the conversation.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn messages_around(
        &self,
        session: SessionId,
        id: MessageId,
        limit: u32,
    ) -> Result<Option<Paged<Message>>, StoreError> {
        let (session, id) = (session.to_string(), id.to_string());
        self.read(move |connection| {
            at_one_moment(connection, |connection| around(connection, &session, &id, limit.max(1)))
        })
        .await
    }

    /// A message of the key, in whichever of its conversations.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn message(&self, key: &SessionKey, id: MessageId) -> Result<Option<Message>, StoreError> {
        let (key, id) = (key.clone(), id.to_string());
        self.read(move |connection| {
            let row = messages::table
                .inner_join(sessions::table.on(sessions::id.eq(messages::session_id)))
                .filter(messages::id.eq(&id))
                .filter(sessions::key.eq(key.as_str()))
                .select(MessageRow::as_select())
                .first(connection)
                .optional()?;
            row.map(MessageRow::read).transpose()
        })
        .await
    }

    /// The newest messages of a conversation, oldest first: at most `max_messages`, and `max_bytes` of their parts, but at
    /// least one where there is one. What is beyond that is not loaded.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn transcript(
        &self,
        session: SessionId,
        max_messages: u32,
        max_bytes: u64,
    ) -> Result<Vec<Message>, StoreError> {
        diesel::define_sql_function!(fn octet_length(text: diesel::sql_types::Text) -> diesel::sql_types::Integer);
        let session = session.to_string();
        self.read(move |connection| {
            at_one_moment(connection, |connection| {
                let newest = || {
                    let of_session = messages::table.filter(messages::session_id.eq(&session));
                    of_session.order(messages::ordinal.desc()).limit(i64::from(max_messages))
                };
                let sizes = newest().select(octet_length(messages::parts)).load::<i32>(connection)?;
                let mut bytes = 0u64;
                let fitting = sizes.into_iter().take_while(|size| {
                    bytes = bytes.saturating_add(u64::try_from(*size).unwrap_or(0));
                    bytes <= max_bytes
                });
                let count = i64::try_from(fitting.count().max(1)).unwrap_or(i64::MAX);
                let rows = newest().limit(count).select(MessageRow::as_select()).load(connection)?;
                rows.into_iter().rev().map(MessageRow::read).collect()
            })
        })
        .await
    }

    /// Of the first `count` messages of a conversation the last `limit`, oldest first: the tail as it was when the
    /// conversation had `count` messages.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tail(&self, session: SessionId, count: u64, limit: u32) -> Result<Vec<Message>, StoreError> {
        let session = session.to_string();
        let last = i64::try_from(count).unwrap_or(i64::MAX);
        self.read(move |connection| {
            let rows = messages::table
                .filter(messages::session_id.eq(&session))
                .filter(messages::ordinal.le(last))
                .order(messages::ordinal.desc())
                .limit(i64::from(limit))
                .select(MessageRow::as_select())
                .load(connection)?;
            rows.into_iter().rev().map(MessageRow::read).collect()
        })
        .await
    }

    /// The messages of a turn, in order.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn messages_of_turn(&self, session: SessionId, turn: TurnId) -> Result<Vec<Message>, StoreError> {
        self.read(move |connection| of_turn(connection, session, turn)).await
    }
}
