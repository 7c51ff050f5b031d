//! What a log line is about, beyond what it says itself: the request that is served, the turn that runs.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, PoisonError, RwLock},
};

use log::{
    Record,
    kv::{Error, Key, Source, Value, VisitSource},
};

use crate::ids::{SessionKey, TurnId};

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// The turn that runs in a session, and the request that sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnTag {
    /// The turn.
    pub turn: TurnId,
    /// The request; not known of a turn from before a restart.
    pub request: Option<Arc<str>>,
}

/// Turns that run, by session. As many as there are running turns.
static RUNNING: LazyLock<RwLock<HashMap<SessionKey, TurnTag>>> = LazyLock::new(RwLock::default);

/// Runs a future for a request: what is logged meanwhile has its id.
pub async fn within<F: Future>(request: &str, future: F) -> F::Output {
    REQUEST.scope(request.into(), future).await
}

/// The id of the request that is served here.
#[must_use]
pub fn request_id() -> Option<Arc<str>> {
    REQUEST.try_with(Arc::clone).ok()
}

/// From now on, lines that name the session belong to that turn.
pub fn tag(session: &SessionKey, tag: TurnTag) {
    RUNNING.write().unwrap_or_else(PoisonError::into_inner).insert(session.clone(), tag);
}

/// Nothing runs in the session any more.
pub fn untag(session: &SessionKey) {
    RUNNING.write().unwrap_or_else(PoisonError::into_inner).remove(session);
}

/// The pairs of a record, and those that are known beside it.
struct More<'a> {
    own: &'a dyn Source,
    more: Vec<(&'static str, String)>,
}

impl Source for More<'_> {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), Error> {
        self.own.visit(visitor)?;
        self.more
            .iter()
            .try_for_each(|(key, value)| visitor.visit_pair(Key::from_str(key), Value::from(value.as_str())))
    }
}

/// Hands a record on with what is known beside it.
pub(super) fn enrich(record: &Record<'_>, then: impl FnOnce(&Record<'_>)) {
    let own = record.key_values();
    let has = |key: &str| own.get(Key::from_str(key)).is_some();
    let mut more: Vec<(&'static str, String)> = Vec::new();
    let session = own.get(Key::from_str("session")).and_then(|session| session.to_string().parse::<SessionKey>().ok());
    let running =
        session.and_then(|session| RUNNING.read().unwrap_or_else(PoisonError::into_inner).get(&session).cloned());
    let mut request = request_id();
    if let Some(TurnTag { turn, request: sender }) = running.filter(|_| !has("turn")) {
        more.push(("turn", turn.to_string()));
        request = request.or(sender);
    }
    if let Some(request) = request.filter(|_| !has("request_id")) {
        more.push(("request_id", request.to_string()));
    }
    if more.is_empty() {
        return then(record);
    }
    let more = More { own: &own, more };
    then(&record.to_builder().key_values(&more).build());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Line;

    fn line(pairs: &[(&str, &str)]) -> Line {
        let mut line = None;
        let record = Record::builder().args(format_args!("x")).key_values(&pairs).build();
        enrich(&record, |record| line = Some(Line::of(record)));
        line.unwrap()
    }

    #[tokio::test]
    async fn a_line_gets_the_turn_of_its_session_and_the_request_that_it_is_for() {
        let (key, turn): (SessionKey, _) = ("log:context".parse().unwrap(), TurnId::new());
        assert!(line(&[("session", "log:context")]).fields.get("turn").is_none());
        tag(&key, TurnTag { turn, request: Some("req_1".into()) });
        let tagged = line(&[("session", "log:context")]);
        assert_eq!((&tagged.fields["turn"], &tagged.fields["request_id"]), (&turn.to_string().into(), &"req_1".into()));
        assert!(line(&[("session", "log:other")]).fields.get("turn").is_none());
        let own = line(&[("session", "log:context"), ("turn", "t"), ("request_id", "mine")]);
        assert_eq!((&own.fields["turn"], &own.fields["request_id"]), (&"t".into(), &"mine".into()));
        untag(&key);
        assert!(line(&[("session", "log:context")]).fields.get("turn").is_none());
        let inside = within("req_2", async { line(&[]) }).await;
        assert_eq!(inside.fields["request_id"], "req_2");
        assert!(line(&[]).fields.is_empty());
    }
}
