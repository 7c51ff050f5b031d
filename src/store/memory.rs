//! What a conversation remembers beside its transcript: standing answers, and the agents' own ids of it.

use std::collections::BTreeMap;

use diesel::{dsl::max, prelude::*};

use super::{
    Rule,
    codec::{optional_text, text},
    connection::{AnyConnection, each},
    fault::Fault,
    schema::{native_ids, rules},
};

/// Adds a rule. One for the same question takes the place of the earlier one.
pub(super) fn add_rule(connection: &mut AnyConnection, key: &str, rule: &Rule) -> Result<(), Fault> {
    let same = rules::table
        .filter(rules::key.eq(key))
        .filter(rules::agent.eq(text(&rule.agent)))
        .filter(rules::tool.eq(text(&rule.tool)));
    match optional_text(rule.input_summary.as_ref()) {
        Some(summary) => diesel::delete(same.filter(rules::input_summary.eq(summary))).execute(connection)?,
        None => diesel::delete(same.filter(rules::input_summary.is_null())).execute(connection)?,
    };
    let last = rules::table.filter(rules::key.eq(key)).select(max(rules::position)).first::<Option<i64>>(connection)?;
    let values = (
        rules::key.eq(key),
        rules::position.eq(last.unwrap_or(0) + 1),
        rules::agent.eq(text(&rule.agent)),
        rules::tool.eq(text(&rule.tool)),
        rules::input_summary.eq(optional_text(rule.input_summary.as_ref())),
        rules::allow.eq(rule.allow),
    );
    diesel::insert_into(rules::table).values(values).execute(connection)?;
    Ok(())
}

/// The rules of the present conversation of a key, oldest first.
pub(super) fn rules_of(connection: &mut AnyConnection, key: &str) -> Result<Vec<Rule>, Fault> {
    let rows = rules::table
        .filter(rules::key.eq(key))
        .order(rules::position.asc())
        .select((rules::agent, rules::tool, rules::input_summary, rules::allow))
        .load::<(String, String, Option<String>, bool)>(connection)?;
    let rule = |(agent, tool, input_summary, allow)| Rule { agent, tool, input_summary, allow };
    Ok(rows.into_iter().map(rule).collect())
}

/// Remembers, or with none forgets, an agent's own id of a conversation.
pub(super) fn set_native_id(
    connection: &mut AnyConnection,
    session: &str,
    agent: &str,
    native_id: Option<&str>,
) -> Result<(), Fault> {
    let agent = text(agent);
    match native_id.map(text) {
        Some(native_id) => {
            let values = (
                native_ids::session_id.eq(session),
                native_ids::agent.eq(&agent),
                native_ids::native_id.eq(&native_id),
            );
            each!(connection, c => diesel::insert_into(native_ids::table)
                .values(values)
                .on_conflict((native_ids::session_id, native_ids::agent))
                .do_update()
                .set(native_ids::native_id.eq(&native_id))
                .execute(c))?;
        }
        None => {
            let target = native_ids::table.filter(native_ids::session_id.eq(session));
            diesel::delete(target.filter(native_ids::agent.eq(&agent))).execute(connection)?;
        }
    }
    Ok(())
}

/// The agents' own ids of a conversation.
pub(super) fn native_ids_of(connection: &mut AnyConnection, session: &str) -> Result<BTreeMap<String, String>, Fault> {
    let rows = native_ids::table
        .filter(native_ids::session_id.eq(session))
        .select((native_ids::agent, native_ids::native_id))
        .load::<(String, String)>(connection)?;
    Ok(rows.into_iter().collect())
}

/// Forgets everything here of one conversation of a key.
pub(super) fn forget(connection: &mut AnyConnection, key: &str, session: &str) -> Result<(), Fault> {
    diesel::delete(rules::table.filter(rules::key.eq(key))).execute(connection)?;
    diesel::delete(native_ids::table.filter(native_ids::session_id.eq(session))).execute(connection)?;
    Ok(())
}
