//! Responses in OpenAI's form. A response that is kept is a turn of a session.

use actix_web::{HttpRequest, HttpResponse, web::Data};
use serde_json::Value;

use super::{
    Api,
    body::{Body, Upload, decode},
    caller::{Reader, Writer},
    openai::{Ask, answer, begin, check_size, collect, once_of, session_of, stream},
};
use crate::{
    doors::{
        narration::Narrator as _,
        openai::{
            ending::Ending,
            refused::invalid,
            response_object::{About, Standing, output_of},
            response_request::ResponseRequest,
            response_told::Told,
            turn_of,
        },
    },
    error::{ApiError, Code},
    gateway::{After, Idempotency, Principal, no_previous},
    ids::{SessionKey, TurnId},
    protocol::{Message, Turn, TurnState},
};

/// How often a response is looked at again as the last one, when its session has news meanwhile.
const LOOKS: usize = 5;

/// `POST /v1/responses`
pub(super) async fn create(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let asked: ResponseRequest = decode(&body, Code::InvalidJson)?;
    asked.check()?;
    let mut looks = LOOKS;
    let running = loop {
        looks -= 1;
        let mut again = asked.clone();
        let conversation = again.take_conversation()?;
        check_size(&api, body.len(), &conversation)?;
        let once = once_of(&request, &body)?;
        let (session, after) = place(&api, &who, &request, &asked, once.as_ref()).await?;
        let waits = after.is_some_and(|after| after.seq != u64::MAX) && looks > 0;
        let metadata = again.metadata.take().unwrap_or_default();
        let model = asked.model.clone();
        let ask = Ask { model, conversation, session, after, metadata, once, input: "input" };
        match begin(&api, &who, ask).await {
            Err(error) if error.code == Code::PreviousResponseNotLast && waits => {}
            begun => break begun?,
        }
    };
    drop(body);
    let about = About {
        turn: running.turn,
        created: running.at,
        model: asked.model,
        instructions: asked.instructions,
        previous: asked.previous_response_id,
        session: running.session.as_ref().map(ToString::to_string),
        metadata: asked.metadata.unwrap_or_default(),
        background: asked.background == Some(true),
    };
    if about.background {
        return Ok(answer(running.session.as_ref(), &about.object(&Standing::Queued, &[])));
    }
    let mut told = Told::new(about);
    if asked.stream == Some(true) {
        return Ok(stream(&api, running, told));
    }
    let mut unseen = Vec::new();
    collect(running.items, |event| {
        told.event(event, &mut unseen);
        unseen.clear();
    })
    .await?;
    Ok(answer(running.session.as_ref(), &told.answer()?))
}

/// The session of a response, and the turn that it must follow.
async fn place(
    api: &Api,
    who: &Principal,
    request: &HttpRequest,
    asked: &ResponseRequest,
    once: Option<&Idempotency>,
) -> Result<(Option<SessionKey>, Option<After>), ApiError> {
    let fields = [("conversation", asked.conversation_key()?), ("user", asked.user.as_deref())];
    let named = session_of(request, &fields)?;
    if let Some(previous) = asked.previous_response_id.as_deref().filter(|id| !id.is_empty()) {
        let turn = turn_of(previous).ok_or_else(no_previous)?;
        let (key, after) = api.gateway.behind_response(who, turn).await?;
        if asked.conversation_key()?.is_some_and(|named| named != key.as_str()) {
            let message = "the response belongs to another conversation; leave out one of the two";
            return Err(invalid("previous_response_id", message));
        }
        return Ok((Some(key), Some(after)));
    }
    let background = asked.background == Some(true);
    if background && asked.store == Some(false) && named.is_none() {
        return Err(invalid("background", "what runs in the background is kept; leave out store"));
    }
    let kept = asked.store == Some(true) || background;
    Ok((named.or_else(|| kept.then(|| api.gateway.key_for(who, once))), None))
}

/// The turn that the path names.
fn named(request: &HttpRequest) -> Result<TurnId, ApiError> {
    let id = request.match_info().get("id").unwrap_or_default();
    let missing = || ApiError::new(Code::ResponseNotFound, format!("There is no response {id:?}."));
    turn_of(id).ok_or_else(|| missing().with("param", "response_id"))
}

/// `GET /v1/responses/{id}`
pub(super) async fn get(request: HttpRequest, api: Data<Api>, Reader(who): Reader) -> Result<HttpResponse, ApiError> {
    let (turn, messages) = api.gateway.response(&who, named(&request)?).await?;
    Ok(answer(Some(&turn.session), &stored(&turn, &messages)))
}

/// `POST /v1/responses/{id}/cancel`
pub(super) async fn cancel(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    _body: Body,
) -> Result<HttpResponse, ApiError> {
    let (turn, _) = api.gateway.response(&who, named(&request)?).await?;
    api.gateway.cancel_turn(&who, &turn.session, turn.id).await?;
    let (turn, messages) = api.gateway.response(&who, turn.id).await?;
    Ok(answer(Some(&turn.session), &stored(&turn, &messages)))
}

/// A turn as a response, whoever has sent it.
fn stored(turn: &Turn, messages: &[Message]) -> Value {
    let standing = match turn.state {
        TurnState::Queued => Standing::Queued,
        TurnState::Starting | TurnState::Running | TurnState::AwaitingChoice => Standing::InProgress,
        over => {
            let ending = Ending::of(over, turn.reason.as_deref(), turn.error.as_ref());
            Standing::Over(ending, over, turn.usage)
        }
    };
    let model = turn.model.as_ref().map_or_else(|| turn.agent.clone(), |model| format!("{}/{model}", turn.agent));
    let about = About {
        turn: turn.id,
        created: turn.created_at,
        model,
        instructions: None,
        previous: None,
        session: Some(turn.session.to_string()),
        metadata: turn.metadata.clone(),
        background: false,
    };
    about.object(&standing, &output_of(messages))
}
