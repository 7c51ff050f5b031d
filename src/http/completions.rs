//! Chat completions in OpenAI's form.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{
    Api,
    body::{Upload, decode},
    caller::Writer,
    openai::{Ask, answer, begin, check_size, collect, once_of, session_of, stream},
};
use crate::{
    doors::openai::{
        chat_request::ChatRequest,
        chat_told::{Chunks, Head, Whole},
    },
    error::{ApiError, Code},
};

/// `POST /v1/chat/completions`
pub(super) async fn create(
    request: HttpRequest,
    api: Data<Api>,
    Writer(who): Writer,
    Upload(body): Upload,
) -> Result<HttpResponse, ApiError> {
    let mut asked: ChatRequest = decode(&body, Code::InvalidJson)?;
    asked.check()?;
    let conversation = asked.conversation()?;
    check_size(&api, body.len(), &conversation)?;
    let once = once_of(&request, &body)?;
    drop(body);
    let named = session_of(&request, &[("user", asked.user.as_deref())])?;
    let kept = asked.store == Some(true);
    let session = named.or_else(|| kept.then(|| api.gateway.key_for(&who, once.as_ref())));
    let ask = Ask {
        model: asked.model.clone(),
        conversation,
        session,
        after: None,
        metadata: asked.metadata.take().unwrap_or_default(),
        once,
        input: "messages",
    };
    let running = begin(&api, &who, ask).await?;
    let head = Head::new(running.turn, running.at, std::mem::take(&mut asked.model));
    if asked.stream == Some(true) {
        return Ok(stream(&api, running, Chunks::new(head, asked.wants_usage())));
    }
    let mut whole = Whole::default();
    collect(running.items, |event| whole.event(event)).await?;
    Ok(answer(running.session.as_ref(), &whole.answer(&head)?))
}
