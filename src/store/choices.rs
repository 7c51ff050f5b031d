//! Choices: the questions of agents, pending and settled.

use diesel::prelude::*;

use super::{
    ChoiceWrite, Store, StoreError,
    codec::{from_json, from_name, optional_text, parse, text, to_json, to_name},
    connection::AnyConnection,
    fault::Fault,
    schema::{choices, sessions},
};
use crate::{
    ids::{ChoiceId, SessionKey},
    protocol::Choice,
    timestamp::Timestamp,
};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = choices, treat_none_as_default_value = false)]
struct ChoiceRow {
    id: String,
    key: String,
    turn_id: String,
    ask_id: String,
    pending: bool,
    kind: String,
    title: String,
    tool: Option<String>,
    input_summary: Option<String>,
    options: String,
    questions: Option<String>,
    created_at: i64,
    expires_at: i64,
}

impl ChoiceRow {
    fn new(choice: &Choice, ask_id: &str) -> Result<Self, Fault> {
        Ok(Self {
            id: choice.id.to_string(),
            key: choice.session.to_string(),
            turn_id: choice.turn_id.to_string(),
            ask_id: text(ask_id),
            pending: true,
            kind: to_name(&choice.kind)?,
            title: text(&choice.title),
            tool: optional_text(choice.tool.as_ref()),
            input_summary: optional_text(choice.input_summary.as_ref()),
            options: to_json(&choice.options)?,
            questions: choice.questions.as_ref().map(to_json).transpose()?,
            created_at: choice.created_at.0,
            expires_at: choice.expires_at.0,
        })
    }

    fn read(self) -> Result<Choice, Fault> {
        Ok(Choice {
            id: parse("choices.id", &self.id)?,
            session: parse("choices.key", &self.key)?,
            turn_id: parse("choices.turn_id", &self.turn_id)?,
            kind: from_name("choices.kind", &self.kind)?,
            title: self.title,
            tool: self.tool,
            input_summary: self.input_summary,
            options: from_json("choices.options", &self.options)?,
            questions: self.questions.map(|questions| from_json("choices.questions", &questions)).transpose()?,
            created_at: Timestamp(self.created_at),
            expires_at: Timestamp(self.expires_at),
        })
    }
}

/// Makes one change. A choice is settled once: settling it again changes nothing and is an error.
pub(super) fn write(connection: &mut AnyConnection, key: &SessionKey, write: &ChoiceWrite) -> Result<(), Fault> {
    match write {
        ChoiceWrite::Insert { choice, ask_id } => {
            diesel::insert_into(choices::table).values(ChoiceRow::new(choice, ask_id)?).execute(connection)?;
        }
        ChoiceWrite::Resolve { id, outcome, source, at } => {
            let target = choices::table
                .filter(choices::id.eq(id.to_string()))
                .filter(choices::key.eq(key.as_str().to_owned()))
                .filter(choices::pending);
            let values = (
                choices::pending.eq(false),
                choices::outcome.eq(to_json(outcome)?),
                choices::source.eq(text(source)),
                choices::resolved_at.eq(at.0),
            );
            if diesel::update(target).set(values).execute(connection)? != 1 {
                return Err(Fault::Row(format!("choice {id} is to be settled and is not pending")));
            }
        }
    }
    Ok(())
}

/// The pending choices of a key with the agent's own ids, oldest first.
pub(super) fn pending(connection: &mut AnyConnection, key: &str) -> Result<Vec<(Choice, String)>, Fault> {
    let rows = choices::table
        .filter(choices::key.eq(key))
        .filter(choices::pending)
        .order((choices::created_at.asc(), choices::id.asc()))
        .select(ChoiceRow::as_select())
        .load(connection)?;
    let read = |mut row: ChoiceRow| {
        let ask_id = std::mem::take(&mut row.ask_id);
        Ok((row.read()?, ask_id))
    };
    rows.into_iter().map(read).collect()
}

impl Store {
    /// A choice of the key, and whether it is settled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn choice(&self, key: &SessionKey, id: ChoiceId) -> Result<Option<(Choice, bool)>, StoreError> {
        let (key, id) = (key.clone(), id.to_string());
        self.read(move |connection| {
            let row = choices::table
                .filter(choices::id.eq(&id))
                .filter(choices::key.eq(key.as_str()))
                .select(ChoiceRow::as_select())
                .first(connection)
                .optional()?;
            let Some(row) = row else { return Ok(None) };
            let resolved = !row.pending;
            Ok(Some((row.read()?, resolved)))
        })
        .await
    }

    /// The pending choices, oldest first: of one key, or of all; only those in sessions of `owner`, where given.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn pending_choices(
        &self,
        key: Option<&SessionKey>,
        owner: Option<&str>,
    ) -> Result<Vec<Choice>, StoreError> {
        let (key, owner) = (key.cloned(), owner.map(str::to_owned));
        self.read(move |connection| {
            let mut query = choices::table
                .inner_join(sessions::table.on(sessions::key.eq(choices::key)))
                .filter(choices::pending)
                .filter(sessions::is_current)
                .order((choices::created_at.asc(), choices::id.asc()))
                .select(ChoiceRow::as_select())
                .into_boxed();
            if let Some(key) = &key {
                query = query.filter(choices::key.eq(key.as_str()));
            }
            if let Some(owner) = &owner {
                query = query.filter(sessions::owner.eq(owner));
            }
            let rows: Vec<ChoiceRow> = query.load(connection)?;
            let readable = rows.into_iter().filter_map(|row| {
                let id = row.id.clone();
                match row.read() {
                    Ok(choice) => Some(choice),
                    // One that cannot be read must not hide the others.
                    Err(fault) => {
                        log::error!(choice = id.as_str(); "a choice cannot be read and is not listed: {fault:?}");
                        None
                    }
                }
            });
            Ok(readable.collect())
        })
        .await
    }
}
