//! The actor of one connection: takes ops one after another, shows streams, keeps the connection alive.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, SpawnHandle, StreamHandler, WrapFuture};
use actix_web::web::{self, Data};
use actix_web_actors::ws::{CloseCode, CloseReason, Message, ProtocolError, WebsocketContext};
use bytestring::ByteString;
use futures_util::{
    StreamExt,
    future::ready,
    stream::{LocalBoxStream, once},
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Opening,
    frames::{Fault, Frames, Gate, Incoming},
    ops::{self, Done, Op},
};
use crate::{
    access::Shows,
    error::{ApiError, Code},
    gateway::{Item, Principal},
    http::{Api, RequestId, follow, follow_all},
    ids::SessionKey,
    logs,
    metrics::Held,
    protocol::frame::{EndReason, ping},
    timestamp::Timestamp,
};

/// Ops that may wait; while so many do, nothing is read.
const MAX_WAITING: usize = 64;
/// Bad frames in a row that a client may send.
const MAX_BAD: u32 = 20;
/// Sessions that one connection may follow.
const MAX_SUBSCRIPTIONS: usize = 1024;
/// Bytes after which the actor stops for one poll, so that they go out before more is pulled.
const MAX_QUEUED: usize = 64 * 1024;

type Context = WebsocketContext<Socket>;

/// A stream to show.
type Items = LocalBoxStream<'static, Item>;

/// The result of the reply, and the stream of a session or of all.
type Admitted = (Result<Value, ApiError>, Option<(Option<SessionKey>, Items)>);

/// The close code for private use that means: no such session.
const NO_SESSION: u16 = 4004;
/// The close code for private use that means: credentials are missing, wrong, or have ended.
const BAD_CREDENTIALS: CloseCode = CloseCode::Other(4001);

/// One connection.
pub(super) struct Socket {
    api: Data<Api>,
    who: Result<Principal, ApiError>,
    id: RequestId,
    /// The session of the path; ops that name none mean it, and its end ends the connection.
    own: Option<SessionKey>,
    /// The subscription that the path asks for, until the actor starts.
    first: Option<Op>,
    /// What the client sends, until the actor starts.
    payload: Option<web::Payload>,
    gate: Rc<Gate>,
    /// Ops in the order of their frames. The first subscription has no id: nobody asked, nobody gets a reply.
    waiting: VecDeque<(Option<Value>, Result<Op, ApiError>)>,
    /// True while an op runs. One at a time: what a client sends first is accepted first.
    busy: bool,
    /// By session; none is the stream over all of them.
    subscriptions: HashMap<Option<SessionKey>, Shown>,
    /// Numbers subscriptions, so that pieces of one that was replaced are known.
    count: u64,
    /// Bytes since the last stop.
    queued: usize,
    bad: u32,
    seen: Instant,
    stopping: bool,
    closed: bool,
    _counted: Held,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.api.sockets.closed();
    }
}

/// A subscription that is shown.
struct Shown {
    number: u64,
    handle: SpawnHandle,
}

/// A piece of a subscription; none when it ended without a word.
struct Piece {
    session: Option<SessionKey>,
    number: u64,
    item: Option<Item>,
}

impl Socket {
    pub(super) fn new(opening: Opening, payload: web::Payload) -> Self {
        let (own, first) = opening.first.unzip();
        opening.api.sockets.opened();
        Self {
            api: opening.api,
            who: opening.who,
            id: opening.id,
            own,
            first,
            payload: Some(payload),
            gate: Rc::default(),
            waiting: VecDeque::new(),
            busy: false,
            subscriptions: HashMap::new(),
            count: 0,
            queued: 0,
            bad: 0,
            seen: Instant::now(),
            stopping: false,
            closed: false,
            _counted: Held::of(|metrics| metrics.sockets.clone()),
        }
    }

    fn write(&mut self, text: ByteString, ctx: &mut Context) {
        if !self.closed {
            self.queued += text.len();
            ctx.text(text);
        }
    }

    /// Lets what is queued go out before anything else is pulled.
    fn pause(&mut self, ctx: &mut Context) {
        if self.queued >= MAX_QUEUED {
            self.queued = 0;
            ctx.wait(tokio::task::yield_now().into_actor(self));
        }
    }

    /// Ends the connection; the server reads on for a moment, so that the client gets to see why.
    fn close(&mut self, code: CloseCode, why: &str, ctx: &mut Context) {
        if !self.closed {
            self.closed = true;
            let number = u16::from(code);
            log::debug!(request_id = self.id.as_str(), code = number; "socket closed: {why}");
            if !matches!(number, 1000 | 1001) {
                self.api.sockets.failed(number, why);
            }
            ctx.close(Some(CloseReason { code, description: Some(why.to_owned()) }));
            ctx.stop();
        }
    }

    fn reply(&mut self, id: &Value, result: Result<Value, ApiError>, ctx: &mut Context) {
        let reply = match result {
            Ok(result) => json!({"type": "reply", "id": id, "ok": true, "result": result}),
            Err(error) => {
                if error.code.status() >= 500 && error.code != Code::ShuttingDown {
                    let (request_id, code) = (self.id.as_str(), error.code.as_str());
                    log::error!(request_id, code; "socket op failed: {}", error.message);
                }
                crate::metrics::refused(error.code);
                json!({"type": "reply", "id": id, "ok": false, "error": error.to_json(self.id.as_str())})
            }
        };
        self.write(reply.to_string().into(), ctx);
    }

    fn receive(&mut self, text: &str, ctx: &mut Context) {
        let (id, op) = ops::parse(text, self.own.as_ref());
        self.bad = if op.is_ok() { 0 } else { self.bad + 1 };
        self.waiting.push_back((Some(id), op));
        if self.waiting.len() >= MAX_WAITING {
            self.gate.shut();
        }
        self.next(ctx);
        if self.bad >= MAX_BAD {
            self.close(CloseCode::Policy, "too many bad frames", ctx);
        }
    }

    /// Begins the next op; what is none is answered in its turn.
    fn next(&mut self, ctx: &mut Context) {
        while !self.busy {
            let Some((id, op)) = self.waiting.pop_front() else { return };
            if self.gate.is_shut() && self.waiting.len() < MAX_WAITING {
                self.gate.open();
            }
            match op {
                Ok(op) => self.begin(id, op, ctx),
                Err(error) => self.finish(id, Err(error), ctx),
            }
        }
    }

    fn begin(&mut self, id: Option<Value>, op: Op, ctx: &mut Context) {
        let who = match self.caller() {
            Ok(who) => who,
            Err(error) if error.code.status() == 401 => return self.close(BAD_CREDENTIALS, error.code.as_str(), ctx),
            Err(error) => return self.finish(id, Err(error), ctx),
        };
        self.busy = true;
        let (api, request) = (self.api.clone(), self.id.clone());
        let done = async move { logs::within(request.as_str(), ops::run(&api.gateway, &who, op)).await };
        ctx.spawn(done.into_actor(self).map(move |done, socket, ctx| {
            socket.busy = false;
            socket.finish(id, done, ctx);
            socket.next(ctx);
            socket.pause(ctx);
        }));
    }

    /// The caller as its credentials allow now; each op counts as a request.
    fn caller(&self) -> Result<Principal, ApiError> {
        let access = self.api.gateway.access();
        let who = access.renew(self.who.as_ref().map_err(Clone::clone)?)?;
        access.limits.request(&who).map_or(Ok(()), |(_, counted)| counted)?;
        Ok(who)
    }

    fn finish(&mut self, id: Option<Value>, done: Result<Done, ApiError>, ctx: &mut Context) {
        let (result, subscribed) = match done {
            Ok(Done::Result(result)) => (Ok(result), None),
            Ok(Done::Subscribed(session, subscription)) => {
                let items = follow(subscription, session.clone());
                self.admit(Some(session), items.boxed_local())
            }
            Ok(Done::SubscribedToAll(subscription)) => self.admit(None, follow_all(subscription).boxed_local()),
            Ok(Done::Unsubscribed(session)) => {
                let was = self.subscriptions.remove(&session).is_some_and(|shown| ctx.cancel_future(shown.handle));
                (Ok(json!({"session": name(session.as_ref()), "subscribed": was})), None)
            }
            Err(error) => (Err(error), None),
        };
        match (id, result) {
            (Some(id), result) => self.reply(&id, result, ctx),
            (None, Ok(_)) => {}
            (None, Err(error)) => self.close(refusal(error.code), error.code.as_str(), ctx),
        }
        if let Some((session, items)) = subscribed {
            self.show(session, items, ctx);
        }
    }

    /// The reply to a subscription, and the subscription where there is room for it.
    fn admit(&self, session: Option<SessionKey>, items: Items) -> Admitted {
        match self.room_for(&session) {
            Ok(()) => (Ok(json!({"session": name(session.as_ref())})), Some((session, items))),
            Err(error) => (Err(error), None),
        }
    }

    fn room_for(&self, session: &Option<SessionKey>) -> Result<(), ApiError> {
        if self.subscriptions.len() < MAX_SUBSCRIPTIONS || self.subscriptions.contains_key(session) {
            return Ok(());
        }
        let what = format!("One connection follows at most {MAX_SUBSCRIPTIONS} sessions; unsubscribe from some.");
        Err(ApiError::new(Code::Overloaded, what).with("maximum", MAX_SUBSCRIPTIONS))
    }

    /// Shows a subscription in place of an earlier one to the same session.
    fn show(&mut self, session: Option<SessionKey>, items: Items, ctx: &mut Context) {
        self.count += 1;
        let number = self.count;
        let items = items.map(Some).chain(once(ready(None)));
        let key = session.clone();
        let pieces = items.map(move |item| Piece { session: key.clone(), number, item });
        let handle = ctx.add_stream(Box::pin(pieces));
        if let Some(earlier) = self.subscriptions.insert(session, Shown { number, handle }) {
            ctx.cancel_future(earlier.handle);
        }
    }

    /// A subscription is over; on the socket of its session so is the connection.
    fn ended(&mut self, session: &Option<SessionKey>, reason: Option<EndReason>, ctx: &mut Context) {
        self.subscriptions.remove(session);
        if session.is_some() && self.own == *session {
            let (code, why) = farewell(reason);
            self.close(code, why, ctx);
        }
        self.stop_when_idle(ctx);
    }

    /// Closes once the server stops and every stream has said so.
    fn stop_when_idle(&mut self, ctx: &mut Context) {
        if self.stopping && self.subscriptions.is_empty() {
            self.close(CloseCode::Away, "shutting_down", ctx);
        }
    }

    /// Ends a connection from which nothing has come for `stream.dead_after`.
    fn watch(&mut self, ctx: &mut Context) {
        if self.gate.is_shut() {
            self.seen = Instant::now();
        }
        let patience = self.api.config.stream.dead_after.0;
        match patience.checked_sub(self.seen.elapsed()).filter(|left| !left.is_zero()) {
            Some(left) => {
                ctx.run_later(left, Self::watch);
            }
            None => self.close(CloseCode::Policy, "silent for too long", ctx),
        }
    }
}

/// How a reply names the session of a subscription.
fn name(session: Option<&SessionKey>) -> &str {
    session.map_or(ops::ALL, SessionKey::as_str)
}

/// The close code where the session of the path cannot be followed.
fn refusal(code: Code) -> CloseCode {
    match code {
        Code::SessionNotFound => CloseCode::Other(NO_SESSION),
        Code::ShuttingDown => CloseCode::Away,
        code if code.status() >= 429 => CloseCode::Again,
        _ => CloseCode::Policy,
    }
}

/// The close code and reason where the stream of the session of the path has ended.
fn farewell(reason: Option<EndReason>) -> (CloseCode, &'static str) {
    match reason {
        Some(EndReason::ShuttingDown) => (CloseCode::Away, "shutting_down"),
        Some(EndReason::TooSlow) => (CloseCode::Again, "too_slow"),
        Some(EndReason::CredentialsRevoked) => (BAD_CREDENTIALS, "credentials_revoked"),
        Some(EndReason::AccessLost) => (CloseCode::Other(NO_SESSION), "access_lost"),
        Some(EndReason::SessionDeleted) => (CloseCode::Other(NO_SESSION), "session_deleted"),
        Some(EndReason::StoreUnavailable) => (CloseCode::Again, "store_unavailable"),
        Some(EndReason::SessionFailed) | None => (CloseCode::Again, "session_failed"),
    }
}

impl Actor for Socket {
    type Context = Context;

    fn started(&mut self, ctx: &mut Context) {
        let access = self.api.gateway.access();
        let lease = self.who.clone().and_then(|who| access.lease(&who, Shows::Nothing));
        let lease = match lease {
            Ok(lease) => lease,
            Err(error) => return self.close(BAD_CREDENTIALS, error.code.as_str(), ctx),
        };
        if let Some(payload) = self.payload.take() {
            let max = self.api.config.limits.max_frame.bytes();
            ctx.add_stream(Frames::new(payload, max, self.gate.clone()));
        }
        ctx.run_interval(self.api.config.stream.heartbeat.0, |socket, ctx| {
            if !socket.closed {
                ctx.ping(b"");
                ctx.text(ping(Timestamp::now()));
            }
        });
        self.watch(ctx);
        ctx.spawn(async move { lease.ended().await }.into_actor(self).map(|reason, socket, ctx| {
            if reason == EndReason::CredentialsRevoked {
                return socket.close(BAD_CREDENTIALS, "credentials_revoked", ctx);
            }
            socket.stopping = true;
            socket.stop_when_idle(ctx);
        }));
        self.waiting.extend(self.first.take().map(|op| (None, Ok(op))));
        self.next(ctx);
    }
}

impl StreamHandler<Incoming> for Socket {
    fn handle(&mut self, incoming: Incoming, ctx: &mut Context) {
        self.seen = Instant::now();
        match incoming {
            Incoming::Text(text) => self.receive(&text, ctx),
            Incoming::Ping(payload) => ctx.pong(&payload),
            Incoming::Pong => {}
            Incoming::Binary => self.close(CloseCode::Unsupported, "text frames only", ctx),
            // The answer carries the client's code.
            Incoming::Close(code) => self.close(code.map_or(CloseCode::Normal, CloseCode::from), "", ctx),
            Incoming::Fault(Fault::TooBig) => self.close(CloseCode::Size, "frame too big", ctx),
            Incoming::Fault(Fault::Protocol) => self.close(CloseCode::Protocol, "not a valid frame", ctx),
            Incoming::Fault(Fault::NotText) => self.close(CloseCode::Invalid, "not UTF-8", ctx),
        }
        self.pause(ctx);
    }

    /// The client is gone.
    fn finished(&mut self, ctx: &mut Context) {
        ctx.stop();
    }
}

impl StreamHandler<Piece> for Socket {
    fn handle(&mut self, piece: Piece, ctx: &mut Context) {
        let current = self.subscriptions.get(&piece.session).is_some_and(|shown| shown.number == piece.number);
        if !current {
            return;
        }
        match piece.item {
            Some(Item::Events(batch)) => batch.frames().iter().for_each(|frame| self.write(frame.json.clone(), ctx)),
            Some(Item::Frames(frames)) => frames.into_iter().for_each(|frame| self.write(frame.json, ctx)),
            Some(Item::Placed(events)) => {
                events.iter().for_each(|(cursor, frame)| self.write(frame.with_cursor(cursor), ctx));
            }
            Some(Item::Control(_, json) | Item::Place(_, json)) => self.write(json, ctx),
            Some(Item::End(reason, json)) => {
                self.write(json, ctx);
                self.ended(&piece.session, Some(reason), ctx);
            }
            Some(Item::Done) | None => self.ended(&piece.session, None, ctx),
        }
        self.pause(ctx);
    }

    /// One stream is over; the connection goes on.
    fn finished(&mut self, _: &mut Context) {}
}

impl StreamHandler<Result<Message, ProtocolError>> for Socket {
    /// The context asks for this handler; the stream behind it is empty for ever.
    fn handle(&mut self, _: Result<Message, ProtocolError>, _: &mut Context) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_say_whether_to_come_back() {
        for (code, expected) in [
            (Code::SessionNotFound, 4004),
            (Code::ShuttingDown, 1001),
            (Code::TooManySessions, 1013),
            (Code::StoreUnavailable, 1013),
            (Code::NotSessionOwner, 1008),
            (Code::RateLimited, 1013),
        ] {
            assert_eq!(u16::from(refusal(code)), expected, "{code:?}");
        }
        for reason in [EndReason::ShuttingDown, EndReason::TooSlow, EndReason::SessionDeleted, EndReason::SessionFailed]
        {
            let code = u16::from(farewell(Some(reason)).0);
            assert_eq!(code == 1001 || code == 1013, reason.retry(), "{reason:?}: {code}");
        }
    }
}
