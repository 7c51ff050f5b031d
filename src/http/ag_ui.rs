//! AG-UI: a run is a turn, or the rest of one.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Data,
};
use serde_json::{Value, json};

use super::{
    Api,
    body::{Upload, decode},
    caller::Writer,
    chat::known,
    follow::follow,
    idempotency::once_of_run,
    path::Named,
};
use crate::{
    doors::{
        ag_ui::{AgUi, Asks, Resume, Run, RunAgentInput, Telling},
        narration::{Known, narrate},
    },
    error::{ApiError, Code},
    gateway::{Accepted, Filter, From, Principal},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::ResolvedBy,
};

/// What a run tells: a turn, whose first event has this number, from behind these choices on, or past all that was
/// settled when it joined.
struct Told {
    turn: TurnId,
    seq: u64,
    behind: Vec<ChoiceId>,
    joined: Option<Known>,
}

/// `POST /v1/ag-ui`
pub(super) async fn run(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let input: RunAgentInput = decode(&body, Code::InvalidJson)?;
    drop(body);
    let mut run = input.read()?;
    let told = told(&request, &api, &who, &mut run).await?;
    let from = From::After(told.seq.saturating_sub(1));
    let filter = Filter { turn: Some(told.turn), ..Filter::default() };
    let subscription = api.gateway.subscribe(&who, &run.thread, from, filter).await?;
    let telling = Telling {
        unsupported: unsupported(&run),
        thread: run.thread.to_string(),
        run: run.id,
        parent: run.parent,
        declares_version: run.declares_version,
        turn: told.turn,
        behind: told.behind,
        joined: told.joined,
        messages: run.messages,
        up_to_user: run.up_to_user,
    };
    let items = follow(subscription, run.thread);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .streaming(narrate(items, AgUi::new(telling), api.config.stream.heartbeat.0)))
}

/// Sends what the run asks, or finds what it sent before.
async fn told(request: &HttpRequest, api: &Api, who: &Principal, run: &mut Run) -> Result<Told, ApiError> {
    let (message, is_new) = match &mut run.asks {
        Asks::Answers(answers) => return answer(api, who, &run.thread, answers).await,
        Asks::Message { message, is_new } => (std::mem::take(&mut **message), *is_new),
    };
    let once = once_of_run(request, &run.id, &run.thread, &message)?;
    let thread = &run.thread;
    let told =
        |accepted: Accepted, joined| Told { turn: accepted.turn.id, seq: accepted.seq, behind: Vec::new(), joined };
    if is_new {
        let accepted = api.gateway.send(who, thread, message, "ag-ui", Some(once)).await?;
        return Ok(told(accepted, None));
    }
    // The client has something of the answer: it comes back to a run that it lost. There is nothing to send.
    let client_id = message.client_id.clone();
    if let Some(accepted) = api.gateway.sent(who, thread, Some(once), None).await? {
        return Ok(told(accepted, None));
    }
    let joined = known(api, who, thread).await?;
    let sent = api.gateway.sent(who, thread, None, client_id.as_deref()).await?;
    let accepted = sent.ok_or_else(|| {
        let message = "messages: the last one must be from the user. There is nothing new to send, and what is there was not sent as the latest message of this thread.";
        ApiError::new(Code::MissingText, message).with("field", "messages")
    })?;
    Ok(told(accepted, Some(joined)))
}

/// Answers questions. One that is settled already stays as it is: the run tells how it was, and what came of it.
async fn answer(api: &Api, who: &Principal, thread: &SessionKey, answers: &[Resume]) -> Result<Told, ApiError> {
    let mut told: Option<Told> = None;
    let mut open = Vec::new();
    for resume in answers {
        let id = ChoiceId::named(&resume.interrupt_id)?;
        let choice = api.gateway.choice(who, thread, id).await?;
        let place = api.gateway.turn_place(who, thread, choice.turn_id).await?;
        let told = told.get_or_insert(Told { turn: place.turn, seq: place.seq, behind: Vec::new(), joined: None });
        if told.turn != choice.turn_id {
            let message = "resume: all interrupts must be of one turn.";
            return Err(ApiError::new(Code::InvalidParameter, message).with("field", "resume"));
        }
        told.behind.push(id);
        open.push((id, resume.answer(&choice)?));
    }
    for (id, answer) in open {
        match api.gateway.answer(who, thread, id, answer, ResolvedBy::Api).await {
            Err(error) if error.code != Code::ChoiceAlreadyResolved => return Err(error),
            _ => {}
        }
    }
    told.ok_or_else(|| ApiError::new(Code::InvalidParameter, "resume: there is no answer in it."))
}

/// What a client sent that has no effect here.
fn unsupported(run: &Run) -> Option<Value> {
    if run.tools.is_empty() && run.context == 0 {
        return None;
    }
    let why = "Agents have tools of their own and get the message alone: what is listed here has no effect.";
    Some(json!({"tools": run.tools, "context": run.context, "message": why}))
}
