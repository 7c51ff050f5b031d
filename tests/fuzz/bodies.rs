//! Bodies of calls: each is taken, or refused with an error of the table; never a 5xx.

use proptest::{prelude::*, test_runner::TestCaseError};
use serde_json::Value;

use crate::{
    cases::{check, corpus, messages},
    gateway::{TestGateway, str_of, text},
};

/// Error types that a caller's mistake may have.
const MISTAKES: [&str; 6] = [
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "not_found_error",
    "conflict_error",
    "rate_limit_error",
];

async fn call(server: &TestGateway, method: &str, path: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let shown = String::from_utf8_lossy(&body).chars().take(2_000).collect::<String>();
    let request = server.request(method, path).header("content-type", "application/json").body(body);
    let reply = server.send(request).await;
    if reply.status < 300 {
        return Ok(());
    }
    let error = serde_json::from_str::<Value>(&reply.text).unwrap_or_default()["error"].take();
    let known = error["type"].as_str().is_some_and(|kind| MISTAKES.contains(&kind));
    let told = error["message"].as_str().is_some_and(|message| !message.is_empty()) && error["code"].is_string();
    prop_assert!(reply.status < 500 && known && told, "{method} {path} {shown}: {} {}", reply.status, reply.text);
    Ok(())
}

/// The server as it should be: it answers, and nothing in it failed.
async fn is_sound(server: &TestGateway) -> Result<(), TestCaseError> {
    let answer = server.post("/v1/sessions/sound/messages?wait=60", text("fine")).await.ok(200);
    prop_assert_eq!(str_of(&answer, "response"), "fine");
    let log = server.log();
    prop_assert!(!log.contains("panicked") && !log.contains(" ERROR "), "{}", log);
    Ok(())
}

#[test]
fn a_body_with_something_wrong_in_it_is_a_callers_mistake() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::start() });
    let calls = corpus(include_str!("corpus/bodies.jsonl"));
    // Only the body is changed: the call stays what it is.
    let cases = prop::sample::select(calls).prop_flat_map(|call| {
        let bodies = messages(vec![call["body"].clone()], 4);
        bodies.prop_map(move |bodies| (call.clone(), bodies))
    });
    check("bodies", prop::collection::vec(cases, 1..16), |calls| {
        runtime.block_on(async {
            // What the case before has set there must not be in the way of this one.
            server.delete("/v1/sessions/k?force=true").await;
            server.post("/v1/sessions/k/messages", text("hi")).await.ok(202);
            for (one, bodies) in &calls {
                for body in bodies {
                    let (method, path) = (str_of(one, "method"), str_of(one, "path"));
                    call(&server, method, path, body.to_string().into_bytes()).await?;
                }
            }
            is_sound(&server).await
        })
    });
}

#[test]
fn bytes_that_are_no_json_are_a_callers_mistake() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = runtime.block_on(async { TestGateway::start() });
    let calls = corpus(include_str!("corpus/bodies.jsonl"));
    let cases = prop::collection::vec((prop::sample::select(calls), prop::collection::vec(any::<u8>(), 0..200)), 1..16);
    check("bytes", cases, |calls| {
        runtime.block_on(async {
            for (one, bytes) in &calls {
                call(&server, str_of(one, "method"), str_of(one, "path"), bytes.clone()).await?;
            }
            is_sound(&server).await
        })
    });
}
