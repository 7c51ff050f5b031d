//! What a call in OpenAI's form does with an agent: what of the conversation reaches it, and what is left of it when it is
//! over, broken off or killed. Asked without a client, which would only hide the wire.

use serde_json::{Value, json};

use crate::{
    gateway::{TestGateway, eventually, in_time, script},
    mock_llm::MockLlm,
};

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn ask(messages: Value) -> Value {
    json!({"model": "echo", "messages": messages})
}

async fn answer(server: &TestGateway, body: Value) -> Value {
    let answer = server.post("/v1/chat/completions", body).await.ok(200);
    answer["choices"][0]["message"]["content"].clone()
}

/// A server with an agent on a mock model server.
fn with_model(mock: &MockLlm) -> TestGateway {
    TestGateway::with(&[
        ("GREENROOM_AGENTS__LOCAL__KIND", "openai"),
        ("GREENROOM_AGENTS__LOCAL__BASE_URL", &mock.v1()),
        ("GREENROOM_AGENTS__LOCAL__MODEL", "m"),
    ])
}

/// A server with a program as its agent.
fn with_program(program: &str) -> TestGateway {
    let command = json!(["sh", "-c", program]).to_string();
    TestGateway::with(&[("GREENROOM_AGENTS__TOOL__KIND", "command"), ("GREENROOM_AGENTS__TOOL__COMMAND", &command)])
}

#[tokio::test]
async fn the_whole_conversation_reaches_the_agent() {
    let mock = MockLlm::start();
    let server = with_model(&mock);
    let png = "data:image/png;base64,iVBORw0KGgo=";
    let said = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": png}}]},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Rome\"}"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "20 C"},
        {"role": "assistant", "content": "warm"},
        {"role": "user", "content": "and now?"},
    ]);
    let body = json!({"model": "local/mock-model", "messages": said});
    server.post("/v1/chat/completions", body).await.ok(200);
    let sent = mock.generations().pop().unwrap().body;
    assert_eq!(sent["model"], "mock-model");
    let image = json!({"type": "image_url", "image_url": {"url": png}});
    let expected = json!([
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "look"}, image]},
        {"role": "assistant", "content": "[called weather: {\"city\":\"Rome\"}]"},
        {"role": "user", "content": "[Result of the tool: 20 C]"},
        {"role": "assistant", "content": "warm"},
        {"role": "user", "content": "and now?"},
    ]);
    assert_eq!(sent["messages"], expected);
    // Usage is what the agent tells.
    let answer = server.post("/v1/responses", json!({"model": "local", "input": "hi"})).await.ok(200);
    assert_eq!(answer["usage"]["output_tokens"], 7);
    assert_eq!(answer["output"][0]["content"][0]["text"], "Hello from mock");
}

#[tokio::test]
async fn a_session_that_begins_so_has_the_conversation_and_goes_on_with_it() {
    let mock = MockLlm::start();
    let server = with_model(&mock);
    let mut said = vec![
        json!({"role": "system", "content": "Be brief."}),
        user("one"),
        json!({"role": "assistant", "content": "two"}),
        user("three"),
    ];
    let send = async |said: &[Value]| {
        let body = json!({"model": "local", "messages": said, "user": "web:begun"});
        server.post("/v1/chat/completions", body).await.ok(200);
        mock.generations().pop().unwrap().body["messages"].clone()
    };
    let first = send(&said).await;
    assert_eq!(first, json!(said), "what was said elsewhere is its beginning");
    // The session knows the rest better: what it has not seen is not believed.
    said.extend([json!({"role": "assistant", "content": "made up"}), user("four")]);
    let mut expected = first.as_array().unwrap().clone();
    expected.extend([json!({"role": "assistant", "content": "Hello from mock"}), user("four")]);
    assert_eq!(send(&said).await, json!(expected));
    // Another word of the system goes along once.
    let other = [json!({"role": "system", "content": "Now in French."}), user("five")];
    let last = send(&other).await.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["content"], "[Note from the system: Now in French.]\n\nfive");
}

#[tokio::test]
async fn a_call_has_its_process_and_folder_for_itself() {
    let server = with_program("echo $PWD; echo $$; cat");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let said =
            json!({"model": "tool", "messages": [user("one"), {"role": "assistant", "content": "two"}, user("three")]});
        let told = answer(&server, said).await.as_str().unwrap().to_owned();
        assert!(told.contains("User: one\n\nAssistant: two") && told.ends_with("three"), "{told}");
        let folder = told.lines().next().unwrap().to_owned();
        let gone =
            eventually("the folder to be gone", || async { (!std::path::Path::new(&folder).exists()).then_some(()) });
        gone.await;
        seen.insert(folder);
    }
    assert_eq!(seen.len(), 2);
    let sessions = server.get("/v1/sessions").await.ok(200);
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1, "the primary one");
}

/// Sends a request and breaks the connection once `seen` has come.
async fn broken_off(server: &TestGateway, body: &Value, seen: Option<&str>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let body = body.to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        server.address(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body.as_bytes()).await.unwrap();
    let Some(seen) = seen else { return };
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains(seen) {
        let mut piece = [0; 4096];
        let read = in_time("a piece", stream.read(&mut piece)).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&piece[..read]);
    }
}

fn lives(pid: i32) -> bool {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None).is_ok()
}

/// The number that a program has written into a file.
async fn pid_in(file: &std::path::Path) -> i32 {
    eventually("the program's start", || async { std::fs::read_to_string(file).ok()?.trim().parse().ok() }).await
}

#[tokio::test]
async fn what_nobody_can_see_any_more_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    for streamed in [true, false] {
        let file = folder.path().join(format!("pid-{streamed}"));
        let server = with_program(&format!("echo begun; echo $$ > {}; exec sleep 1000", file.display()));
        let body = json!({"model": "tool", "messages": [user("go")], "stream": streamed});
        if streamed {
            broken_off(&server, &body, Some("begun")).await;
        } else {
            let call = broken_off(&server, &body, Some("never"));
            tokio::select! {
                () = call => panic!("it has no end"),
                pid = pid_in(&file) => assert!(lives(pid)),
            }
        }
        let pid = pid_in(&file).await;
        eventually("the end of the program", || async { (!lives(pid)).then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_killed_server_leaves_nothing_of_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut server = with_program(&format!("echo $$ > {}; touch left; exec sleep 1000", file.display()));
    let body = json!({"model": "tool", "messages": [user("go")], "stream": true});
    let pid = tokio::select! {
        () = broken_off(&server, &body, Some("never")) => panic!("it has no end"),
        pid = async {
            let pid = pid_in(&file).await;
            eventually("its folder", || async { calls(&server).first().cloned() }).await;
            server.get("/v1/sessions").await.ok(200);
            pid
        } => pid,
    };
    // The record of the process is written beside its start.
    server.kill9();
    server.restart();
    eventually("the program's end", || async { (!lives(pid)).then_some(()) }).await;
    assert_eq!(calls(&server), Vec::<String>::new());
    let sessions = server.get("/v1/sessions").await.ok(200);
    assert_eq!(sessions["data"].as_array().unwrap().len(), 1, "the primary one");
}

/// The folders of calls.
fn calls(server: &TestGateway) -> Vec<String> {
    let folders = std::fs::read_dir(server.data_dir().join("calls")).into_iter().flatten();
    folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_question_in_a_call_is_refused_at_once_and_in_a_session_it_waits() {
    let server = TestGateway::start();
    let asks = script(&json!({"ask": "permission", "text": "done"}));
    let told = answer(&server, ask(json!([user(&asks)]))).await;
    assert!(told.as_str().unwrap().ends_with("done") && !told.as_str().unwrap().contains("allow"), "{told}");
    let mut body = ask(json!([user(&asks)]));
    body["user"] = "web:asks".into();
    let allowed = async {
        let choice = eventually("the question", || async {
            let asked = server.get("/v1/choices").await.ok(200);
            asked["data"].get(0).map(|choice| choice["id"].as_str().unwrap().to_owned())
        });
        let path = format!("/v1/sessions/web:asks/choices/{}", choice.await);
        server.post(&path, json!({"allow": true})).await.ok(202);
    };
    let (told, ()) = tokio::join!(answer(&server, body), allowed);
    assert!(told.as_str().unwrap().contains("allow"), "{told}");
}

#[tokio::test]
async fn errors_have_the_fields_that_clients_look_for() {
    let server = TestGateway::start();
    let refused = server.post("/v1/chat/completions", json!({"model": "echo", "messages": 5})).await;
    let error = refused.refused(400, "invalid_json");
    assert!(error.as_object().unwrap().contains_key("param"), "{error}");
    assert_eq!(refused.header("x-should-retry"), "false");
    let unknown = server.get("/v1/models/no/such").await.refused(404, "model_not_found");
    assert_eq!(unknown["param"], "model");
    let native = server.get("/v1/sessions/none").await.refused(404, "session_not_found");
    assert!(!native.as_object().unwrap().contains_key("param"));
}

#[tokio::test]
async fn calls_count_for_the_limits_of_their_user() {
    let server =
        TestGateway::with(&[("GREENROOM_CALLERS__MAX_TURNS", "1"), ("GREENROOM_BUDGET__USER_DAY_TOKENS", "3")]);
    let hang = ask(json!([user(&script(&json!({"deltas": 1, "hang": true})))]));
    let mut hangs = hang.clone();
    hangs["stream"] = true.into();
    let busy = async {
        broken_off(&server, &hangs, Some("000000")).await;
    };
    busy.await;
    // Broken off, it is no more; until then it takes the only place.
    eventually("a free place", || async {
        let reply = server.post("/v1/chat/completions", ask(json!([user("a b c d")]))).await;
        (reply.status != 429).then_some(())
    })
    .await;
    let reply = server.post("/v1/chat/completions", ask(json!([user("more")]))).await;
    reply.refused(429, "budget_exceeded");
}
