//! Chats of the Vercel AI SDK: a message in, its turn out as a UI message stream, and the turn at work once more.

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    web::Data,
};

use super::{
    Api, Params,
    body::{Upload, decode},
    caller::{Reader, Writer},
    follow::follow,
    idempotency::once_of_message,
    path::{Key, Named, key as parse_key},
};
use crate::{
    doors::{
        narration::{Known, narrate},
        ui_message::{Begin, ChatRequest, Narrator, PROTOCOL_HEADER, Version, request::Said},
    },
    error::{ApiError, Code},
    gateway::{Filter, From, Principal, TurnPlace},
    ids::{ChoiceId, SessionKey, TurnId},
    protocol::{ChoiceAnswer, ResolvedBy, SendMessage},
    store::Page,
};

/// How a client says which version of the SDK it has, beside the parameter `ui`.
const VERSION_HEADER: &str = "x-ai-sdk-version";
/// The turn that a stream tells.
const TURN_HEADER: &str = "x-turn-id";

/// `POST /v1/chat`: the session is the body's `id`.
pub(super) async fn chat(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    params: Params,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let chat: ChatRequest = decode(&body, Code::InvalidJson)?;
    drop(body);
    let key = parse_key(chat.id.as_deref().unwrap_or_default())?;
    talk(&request, &api, &who, &key, &params, chat).await
}

/// `POST …/chat`: the session is that of the path.
pub(super) async fn chat_with(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Key(key): Key,
    params: Params,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let chat: ChatRequest = decode(&body, Code::InvalidJson)?;
    drop(body);
    talk(&request, &api, &who, &key, &params, chat).await
}

/// `GET /v1/chat/{key}/stream`: 204 where nothing is at work, also where there is no session yet, since a chat asks for this
/// when it is shown for the first time.
pub(super) async fn resume(
    request: HttpRequest,
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    match again(&request, &api, &who, &key, &params).await {
        Err(error) if error.code == Code::SessionNotFound => Ok(HttpResponse::NoContent().finish()),
        answer => answer,
    }
}

/// `GET …/chat/stream`: the same of a session that must be there.
pub(super) async fn resume_in(
    request: HttpRequest,
    api: Data<Api>,
    Reader(who): Reader,
    Key(key): Key,
    params: Params,
) -> Result<HttpResponse, ApiError> {
    again(&request, &api, &who, &key, &params).await
}

async fn talk(
    request: &HttpRequest,
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    params: &Params,
    chat: ChatRequest,
) -> Result<HttpResponse, ApiError> {
    let version = version(request, params)?;
    match chat.said()? {
        Said::Message(message) => say(request, api, who, key, version, *message).await,
        Said::Answers(answers) => answer(api, who, key, version, answers).await,
    }
}

/// Sends what the user says, and shows its turn.
async fn say(
    request: &HttpRequest,
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    version: Version,
    message: SendMessage,
) -> Result<HttpResponse, ApiError> {
    let once = once_of_message(request, key, &message)?;
    let text = message.text.clone().unwrap_or_default();
    let outcome = api.gateway.send(who, key, message, "chat", once).await?;
    let turn = outcome.turn.id;
    if outcome.steered {
        let place = api.gateway.turn_place(who, key, turn).await?;
        let begin = Begin::AfterSteering(text.trim().to_owned(), outcome.seq);
        return show(api, who, key, version, place, begin).await;
    }
    show(api, who, key, version, TurnPlace { turn, seq: outcome.seq }, Begin::AtStart).await
}

/// Answers what the agent asked, and shows how its turn goes on.
async fn answer(
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    version: Version,
    answers: Vec<(ChoiceId, bool)>,
) -> Result<HttpResponse, ApiError> {
    let mut turn = None;
    for (id, allow) in &answers {
        turn = Some(api.gateway.choice(who, key, *id).await?.turn_id);
        let answer = ChoiceAnswer { allow: Some(*allow), ..ChoiceAnswer::default() };
        match api.gateway.answer(who, key, *id, answer, ResolvedBy::Api).await {
            // Somebody else was first, or this is the same answer again: what came of it is shown all the same.
            Err(error) if error.code == Code::ChoiceAlreadyResolved => {}
            answered => answered?,
        }
    }
    let turn = turn.ok_or_else(|| ApiError::new(Code::ChoiceNotFound, "no question is answered"))?;
    let place = api.gateway.turn_place(who, key, turn).await?;
    let asked = answers.into_iter().map(|(id, _)| id).collect();
    show(api, who, key, version, place, Begin::AfterChoices(asked)).await
}

/// The turn at work once more, from its start; or the one that `turn` names, be it over or not.
async fn again(
    request: &HttpRequest,
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    params: &Params,
) -> Result<HttpResponse, ApiError> {
    let version = version(request, params)?;
    let place = match params.get("turn") {
        None => api.gateway.turn_at_work(who, key).await?,
        Some("last") => match api.gateway.turn_at_work(who, key).await? {
            None => last(api, who, key).await?,
            working => working,
        },
        Some(id) => Some(api.gateway.turn_place(who, key, TurnId::named(id)?).await?),
    };
    match place {
        Some(place) => {
            let narrator = Narrator::again(version, place.turn, known(api, who, key).await?);
            told(api, who, key, place, narrator).await
        }
        None => Ok(HttpResponse::NoContent().finish()),
    }
}

/// What is known of a session to which a client comes back.
pub(super) async fn known(api: &Api, who: &Principal, key: &SessionKey) -> Result<Known, ApiError> {
    // In this order: what is asked between the two looks is taken for pending.
    let last_seq = api.gateway.snapshot(who, key).await?.last_seq;
    let pending = api.gateway.choices(who, Some(key)).await?.into_iter().map(|choice| choice.id).collect();
    Ok(Known { last_seq, pending })
}

async fn last(api: &Api, who: &Principal, key: &SessionKey) -> Result<Option<TurnPlace>, ApiError> {
    let newest = Page { limit: 1, after: None, before: None, ascending: false };
    match api.gateway.turns(who, key, None, newest).await?.data.first() {
        Some(turn) => api.gateway.turn_place(who, key, turn.id).await.map(Some),
        None => Ok(None),
    }
}

/// The turn as a UI message stream.
async fn show(
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    version: Version,
    place: TurnPlace,
    begin: Begin,
) -> Result<HttpResponse, ApiError> {
    told(api, who, key, place, Narrator::new(version, place.turn, begin)).await
}

async fn told(
    api: &Api,
    who: &Principal,
    key: &SessionKey,
    place: TurnPlace,
    narrator: Narrator,
) -> Result<HttpResponse, ApiError> {
    let filter = Filter { turn: Some(place.turn), ..Filter::default() };
    let subscription = api.gateway.subscribe(who, key, From::After(place.seq.saturating_sub(1)), filter).await?;
    let pieces = narrate(follow(subscription, key.clone()), narrator, api.config.stream.heartbeat.0);
    Ok(HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-cache, no-store"))
        .insert_header(("x-accel-buffering", "no"))
        .insert_header(PROTOCOL_HEADER)
        .insert_header((TURN_HEADER, place.turn.to_string()))
        .streaming(pieces))
}

/// Which parts the client understands.
fn version(request: &HttpRequest, params: &Params) -> Result<Version, ApiError> {
    let header = request.headers().get(VERSION_HEADER).map(|value| value.to_str().unwrap_or_default());
    let read = |name: &str, text: Option<&str>| {
        text.map(Version::parse).map(|version| {
            version.ok_or_else(|| {
                let message = format!("{name} is the version of the AI SDK, such as 6 or 6.0.322, from 5 on.");
                ApiError::new(Code::InvalidParameter, message).with("parameter", name)
            })
        })
    };
    // A wrong one is told, also where the other one counts.
    let (header, query) = (read(VERSION_HEADER, header).transpose()?, read("ui", params.get("ui")).transpose()?);
    Ok(query.or(header).unwrap_or_default())
}
