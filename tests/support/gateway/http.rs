//! Calls over HTTP, and what is true of every answer.

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{PATIENCE, Sse, TestGateway, in_time, play, str_of, turn_id};

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub text: String,
}

impl Reply {
    /// A header as text; empty when it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text))
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn ok(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The error object of a refusal, in the envelope of the contract.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> Value {
        let body = self.json();
        assert_eq!((self.status, str_of(&body["error"], "code")), (status, code), "{}", self.text);
        assert_eq!(body.as_object().unwrap().len(), 1, "nothing beside the error: {body}");
        self.assert_envelope()
    }

    /// The error object; it has the fields and the type that its status calls for.
    #[track_caller]
    pub fn assert_envelope(&self) -> Value {
        let error = self.json()["error"].clone();
        let kinds: &[&str] = match self.status {
            400 | 405 | 408 | 413 | 415 => &["invalid_request_error"],
            401 => &["authentication_error"],
            403 => &["permission_error"],
            404 => &["not_found_error"],
            409 => &["conflict_error"],
            429 => &["rate_limit_error"],
            500 => &["internal_error"],
            502 | 504 => &["agent_error"],
            503 => &["overloaded_error", "agent_error"],
            other => panic!("no such error status in the contract: {other}"),
        };
        assert!(kinds.contains(&str_of(&error, "type")), "{error}");
        assert!(!str_of(&error, "message").is_empty() && !str_of(&error, "code").is_empty(), "{error}");
        assert_eq!(str_of(&error, "request_id"), self.header("x-request-id"), "{error}");
        assert_eq!(self.header("content-type"), "application/json");
        if self.status == 429 {
            assert!(self.header("retry-after").parse::<u32>().is_ok(), "{:?}", self.headers);
        }
        error
    }
}

impl TestGateway {
    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// A call that is being described.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    /// Makes a call.
    pub async fn send(&self, request: RequestBuilder) -> Reply {
        let reply = async {
            let answer = request.send().await.unwrap();
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            Reply { status, headers, text: answer.text().await.unwrap() }
        };
        let reply = tokio::time::timeout(PATIENCE, reply).await;
        let reply = reply.unwrap_or_else(|_late| panic!("no answer in {PATIENCE:?}; the log:\n{}", self.log()));
        assert!(!reply.header("x-request-id").is_empty(), "{reply:?}");
        reply
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Reply {
        self.send(self.request("GET", path)).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Reply {
        self.send(self.request("DELETE", path)).await
    }

    /// `POST` with a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(self.request("POST", path).json(&body)).await
    }

    /// `PATCH` with a JSON body.
    pub async fn patch(&self, path: &str, body: Value) -> Reply {
        self.send(self.request("PATCH", path).json(&body)).await
    }

    /// `PUT` with a JSON body.
    pub async fn put(&self, path: &str, body: Value) -> Reply {
        self.send(self.request("PUT", path).json(&body)).await
    }

    /// `POST` without a body.
    pub async fn act(&self, path: &str) -> Reply {
        self.send(self.request("POST", path)).await
    }

    /// Sends bytes as they are and reads until the server closes. The bytes should ask it to.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let mut answer = Vec::new();
        in_time("an answer to raw bytes", async {
            stream.write_all(bytes).await.unwrap();
            stream.read_to_end(&mut answer).await.unwrap();
        })
        .await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends a message; it must be accepted.
    pub async fn message(&self, key: &str, body: Value) -> Value {
        self.post(&format!("/v1/sessions/{key}/messages"), body).await.ok(202)
    }

    /// Sends a message and waits until its turn is over: `{"turn", "response"}`.
    pub async fn run(&self, key: &str, body: Value) -> Value {
        self.post(&format!("/v1/sessions/{key}/messages?wait=60"), body).await.ok(200)
    }

    /// A snapshot.
    pub async fn snapshot(&self, key: &str) -> Value {
        self.get(&format!("/v1/sessions/{key}")).await.ok(200)
    }

    /// A turn.
    pub async fn turn(&self, key: &str, id: &str) -> Value {
        self.get(&format!("/v1/sessions/{key}/turns/{id}")).await.ok(200)
    }

    /// Waits for the end of a turn; gives the turn.
    pub async fn finished(&self, key: &str, id: &str) -> Value {
        self.until(key, |event| event["type"] == "turn.finished" && event["turn_id"] == *id).await;
        self.turn(key, id).await
    }

    /// Begins a turn that goes on until it is cancelled, and waits until the agent has it.
    pub async fn hang(&self, key: &str, more: Value) -> String {
        let mut steps = json!({ "hang": true });
        steps.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = turn_id(&self.message(key, play(steps)).await);
        self.until(key, |event| event["type"] == "turn.started" && event["turn_id"] == *id).await;
        id
    }

    /// Reads the log from its beginning until an event fits; gives all events up to it.
    pub async fn until(&self, key: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let mut stream = Sse::open(self, &format!("/v1/sessions/{key}/events?after=0")).await;
        stream.until(fits).await
    }

    /// The whole log so far.
    pub async fn events(&self, key: &str) -> Vec<Value> {
        self.stored(key).await.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// The whole log so far, each event as its bytes.
    pub async fn stored(&self, key: &str) -> Vec<String> {
        #[derive(serde::Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            data: Vec<&'a serde_json::value::RawValue>,
            last_id: Option<u64>,
            has_more: bool,
        }
        let (mut events, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/v1/sessions/{key}/events?after={after}&limit=1000");
            let reply = self.send(self.request("GET", &path).header("accept", "application/json")).await;
            assert_eq!(reply.status, 200, "{}", reply.text);
            let page: Page<'_> = serde_json::from_str(&reply.text).unwrap();
            events.extend(page.data.iter().map(|event| event.get().to_owned()));
            if !page.has_more {
                return events;
            }
            after = page.last_id.unwrap();
        }
    }
}
