//! The HTTP side: one handler for every path, so that any base URL works; records, dispatches, streams.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::Method, rt, web};
use futures_util::stream;
use serde_json::{Value, json};

use super::{Answer, Request, State, anthropic, chat, gemini, reply::Piece, reply::Reply, responses};

/// The largest body that is taken.
const MAX_BODY: usize = 128 << 20;
/// Between two signs of life of a held stream.
const SIGN_OF_LIFE: Duration = Duration::from_millis(20);

/// Starts the server in a thread with a runtime of its own.
pub fn spawn(
    address: SocketAddr,
    state: &Arc<State>,
) -> io::Result<(SocketAddr, ServerHandle, thread::JoinHandle<()>)> {
    let (started, ready) = mpsc::channel();
    let state = Arc::clone(state);
    let thread = thread::Builder::new().name("mock-llm".into()).spawn(move || {
        rt::System::new().block_on(async move {
            let data = web::Data::from(state);
            let app = move || {
                let limit = web::PayloadConfig::new(MAX_BODY);
                App::new().app_data(limit).app_data(data.clone()).default_service(web::to(answer))
            };
            let server = HttpServer::new(app).workers(1).disable_signals().bind(address);
            let server = match server {
                Ok(server) => server,
                Err(error) => return drop(started.send(Err(error))),
            };
            let bound = server.addrs().first().copied().unwrap_or(address);
            let running = server.run();
            drop(started.send(Ok((bound, running.handle()))));
            if let Err(error) = running.await {
                log::error!("the mock model server broke: {error}");
            }
        });
    })?;
    let (address, handle) = ready.recv().map_err(io::Error::other)??;
    Ok((address, handle, thread))
}

/// The protocols that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Chat,
    Responses,
    Anthropic,
    Gemini,
}

impl Dialect {
    /// The protocol whose generations have this path.
    pub fn of(path: &str) -> Option<Self> {
        Some(match path {
            _ if path.ends_with("/chat/completions") => Self::Chat,
            _ if path.ends_with("/responses") => Self::Responses,
            _ if path.ends_with("/messages") => Self::Anthropic,
            _ if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") => Self::Gemini,
            _ => return None,
        })
    }
}

async fn answer(request: HttpRequest, body: web::Bytes, state: web::Data<State>) -> HttpResponse {
    let headers = request.headers().iter();
    let headers: BTreeMap<String, String> =
        headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect();
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = request.path().to_owned();
    log::info!("{} {path}", request.method());
    let number = state.record(Request {
        number: 0,
        method: request.method().to_string(),
        path: path.clone(),
        query: request.query_string().to_owned(),
        headers,
        body: body.clone(),
        answer: Answer::Running,
    });
    let reply = reply(&request, &path, &body, number, &state);
    send(reply, Watch { number, state: state.into_inner(), answer: Answer::Abandoned })
}

/// Finds the answer to a request.
fn reply(request: &HttpRequest, path: &str, body: &Value, number: usize, state: &State) -> Reply {
    if request.method() != Method::POST {
        return if path.ends_with("/models") {
            state.lock().models.clone()
        } else {
            Reply::json(200, &json!({"ok": true}))
        };
    }
    if path.ends_with("/count_tokens") {
        return Reply::json(200, &json!({"input_tokens": 42}));
    }
    if path.ends_with(":countTokens") {
        return Reply::json(200, &json!({"totalTokens": 42}));
    }
    let Some(dialect) = Dialect::of(path) else { return Reply::json(200, &json!({"ok": true})) };
    if let Some(scripted) = state.lock().script.pop_front() {
        return scripted;
    }
    match dialect {
        Dialect::Chat => chat::reply(body, number),
        Dialect::Responses => responses::reply(body, number),
        Dialect::Anthropic => anthropic::reply(body, number),
        Dialect::Gemini => gemini::reply(body, number, path.ends_with(":streamGenerateContent")),
    }
}

/// Tells how an answer ended: abandoned, unless its end was reached before this is dropped.
struct Watch {
    number: usize,
    state: Arc<State>,
    answer: Answer,
}

impl Watch {
    fn finished(&mut self) {
        self.answer = Answer::Finished;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.state.answered(self.number, self.answer);
    }
}

fn send(reply: Reply, mut watch: Watch) -> HttpResponse {
    let mut response = HttpResponse::build(reply.status);
    for (name, value) in &reply.headers {
        response.append_header((name.as_str(), value.as_str()));
    }
    let whole: Option<String> = reply
        .pieces
        .iter()
        .map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let is_stream = reply.headers.iter().any(|(_, value)| value == "text/event-stream");
    if let (Some(body), false) = (whole, is_stream) {
        watch.finished();
        return response.body(body);
    }
    let pieces = VecDeque::from(reply.pieces);
    response.streaming(stream::unfold((pieces, watch), |(mut pieces, mut watch)| async move {
        loop {
            match pieces.pop_front() {
                Some(Piece::Text(text)) => return Some((Ok(web::Bytes::from(text)), (pieces, watch))),
                Some(Piece::Pause(time)) => rt::time::sleep(time).await,
                Some(Piece::Hold) => {
                    rt::time::sleep(SIGN_OF_LIFE).await;
                    pieces.push_front(Piece::Hold);
                    return Some((Ok(web::Bytes::from_static(b": still here\n\n")), (pieces, watch)));
                }
                Some(Piece::Break) => {
                    // A body that fails takes along what is not flushed yet; the dispatcher flushes when it has to wait.
                    tokio::task::yield_now().await;
                    watch.finished();
                    return Some((Err(io::Error::other("broken off by the script")), (pieces, watch)));
                }
                None => {
                    watch.finished();
                    return None;
                }
            }
        }
    }))
}
