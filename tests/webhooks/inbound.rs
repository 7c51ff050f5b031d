//! Inbound webhooks: who is believed, what becomes of a body, and that a message is one however often it comes.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    door::{Door, OTHER, SHARED, STANDARD, now},
    gateway::{str_of, turn_id},
    outbound::QUICK,
    receiver::Receiver,
};

#[tokio::test]
async fn a_signed_message_becomes_a_turn() {
    let door = Door::open();
    let body = json!({"text": " hello ", "sender": "nightly", "metadata": {"build": 7}, "unknown": 1}).to_string();
    let reply = door.send(door.standard("ci", STANDARD, "msg_1", &body)).await;
    let accepted = reply.ok(202);
    let turn = &accepted["turn"];
    assert_eq!((str_of(turn, "session"), str_of(turn, "text")), ("webhook:ci:nightly", "hello"));
    assert_eq!((str_of(turn, "source"), &turn["metadata"]), ("webhook:ci", &json!({"build": 7})));
    let place = format!("/v1/sessions/webhook%3Aci%3Anightly/turns/{}", turn_id(&accepted));
    assert_eq!(reply.header("location"), place);
    assert_eq!(door.server.snapshot("webhook:ci:nightly").await["owner"], "local");

    let waited = door.send(door.standard("ci?wait=60", OTHER, "msg_2", r#"{"text":"and now"}"#)).await.ok(200);
    assert_eq!((&waited["turn"]["state"], &waited["response"]), (&json!("completed"), &json!("and now")));
    assert_eq!(waited["turn"]["session"], "webhook:ci:default", "nobody is named");

    let status = door.status("ci").await;
    assert_eq!((&status["accepted_total"], &status["refused_total"]), (&json!(2), &json!(0)));
    assert_eq!((&status["verify"], &status["prefix"]), (&json!("standard"), &json!("webhook:ci:")));
    assert!(status["last_at"].is_string() && status["last_error"].is_null(), "{status}");
    let metrics = door.server.get("/metrics").await.text;
    let counted = r#"greenroom_webhooks_received_total{outcome="accepted",route="ci"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
    door.server.assert_quiet();
}

#[tokio::test]
async fn what_is_not_signed_right_is_refused_and_makes_nothing() {
    let door = Door::open();
    let body = r#"{"text":"pay the attacker"}"#;
    let signed = |body: &str, at| door.standard_at("ci", STANDARD, "msg_1", body, at);
    let header = |request: reqwest::RequestBuilder, name: &'static str, value: &str| {
        let mut request = request.build().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request)
    };
    let wrong = [
        ("another secret", door.standard("ci", "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "msg_1", body)),
        ("the secret of another route", door.standard("other", STANDARD, "msg_1", body)),
        ("too old", signed(body, now() - 310)),
        ("from the future", signed(body, now() + 310)),
        ("replayed as another", header(signed(body, now()), "webhook-id", "msg_2")),
        ("made younger", header(signed(body, now() - 400), "webhook-timestamp", &now().to_string())),
        ("forged", header(signed(body, now()), "webhook-signature", "v1,AAAA")),
        ("of another version", header(signed(body, now()), "webhook-signature", "v1a,AAAA")),
        ("a byte more", signed(body, now()).body(format!("{body} "))),
        ("another byte", signed(body, now()).body(body.replace("the", "thy"))),
        ("github", door.github("1", "issues", body).header("x-hub-signature-256", "sha256=00")),
        ("slack too old", door.slack(body, now() - 310)),
        ("shared", door.call("shared", body).header("x-webhook-secret", "guess")),
        // Not even what is wrong with the body is told.
        ("no json", door.call("shared", "{").header("x-webhook-secret", "guess")),
    ];
    for (what, request) in wrong {
        let reply = door.send(request).await;
        // Two headers of one name are none.
        let code = if what == "github" { "missing_credentials" } else { "invalid_signature" };
        assert_eq!(reply.json()["error"]["code"], code, "{what}: {}", reply.text);
        assert_eq!(reply.status, 401);
        assert!(reply.header("www-authenticate").starts_with("Webhook"), "{:?}", reply.headers);
    }
    for route in ["ci", "other", "github", "slack", "shared"] {
        let reply = door.send(door.call(route, body)).await;
        let error = reply.refused(401, "missing_credentials");
        assert!(str_of(&error, "parameter").starts_with('x') || error["parameter"] == "webhook-id", "{error}");
        let with_token = door.send(door.call(route, body).bearer_auth("gr_x")).await;
        with_token.refused(401, "missing_credentials");
    }
    assert_eq!(door.sessions().await, 0);
    let status = door.status("ci").await;
    assert!(status["accepted_total"] == 0 && status["refused_total"].as_u64().unwrap() > 5, "{status}");
    assert_eq!(status["last_error"]["code"], "missing_credentials");
    let log = door.server.log();
    assert!(!log.contains(SHARED) && !log.contains(&STANDARD[6..]), "{log}");
}

#[tokio::test]
async fn whoever_guesses_is_slowed_down_and_whoever_is_right_is_not() {
    let door = Door::with(
        "[webhooks.shared]\nverify = \"secret\"\nsecret_env = \"HOOK_SECRET\"\n",
        &[("GREENROOM_CALLERS__WRONG_CREDENTIALS", "3")],
    );
    let guess = || door.send(door.call("shared", "{}").header("x-webhook-secret", "guess"));
    for _ in 0..3 {
        guess().await.refused(401, "invalid_signature");
    }
    guess().await.refused(429, "rate_limited");
    door.send(door.shared(r#"{"text":"x"}"#)).await.ok(202);
}

#[tokio::test]
async fn a_repeated_delivery_gets_the_first_answer_again_also_after_a_crash() {
    let mut door = Door::open();
    let body = r#"{"text":"once","sender":"a"}"#;
    let first = door.send(door.standard("ci", STANDARD, "msg_1", body)).await.ok(202);
    let id = turn_id(&first);
    // Another attempt has another time, and another signature.
    let again = door.send(door.standard_at("ci", OTHER, "msg_1", body, now() - 5)).await.ok(202);
    assert_eq!(turn_id(&again), id);
    door.server.kill9();
    door.server.restart();
    let again = door.send(door.standard("ci", STANDARD, "msg_1", body)).await.ok(202);
    assert_eq!(turn_id(&again), id);
    // What a sender calls the same message is the same, whatever an attempt looks like and whomever it names.
    let other = r#"{"text":"another","sender":"b"}"#;
    let again = door.send(door.standard("ci", STANDARD, "msg_1", other)).await.ok(202);
    assert_eq!((turn_id(&again), str_of(&again["turn"], "session")), (id, "webhook:ci:a"));
    assert_eq!(door.sessions().await, 1);
    assert_eq!(door.server.get("/v1/sessions/webhook:ci:a/turns").await.ok(200)["data"].as_array().unwrap().len(), 1);
    // Each route has its own names.
    let elsewhere = door.send(door.standard("other", OTHER, "msg_1", body)).await.ok(202);
    assert_eq!(elsewhere["turn"]["session"], "webhook:other:a");
    let status = door.status("ci").await;
    assert_eq!((&status["accepted_total"], &status["duplicate_total"]), (&json!(0), &json!(2)), "since the restart");
}

#[tokio::test]
async fn the_same_delivery_many_times_at_once_is_one_turn() {
    let door = Door::open();
    let bodies: Vec<String> = (0..20).map(|n| format!(r#"{{"text":"once","sender":"s{}"}}"#, n % 2)).collect();
    let calls = bodies.iter().map(|body| door.send(door.standard("ci", STANDARD, "msg_1", body)));
    let ids: Vec<String> = join_all(calls).await.iter().map(|reply| turn_id(&reply.ok(202))).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(door.sessions().await, 1, "whichever came first");
    let status = door.status("ci").await;
    assert_eq!((&status["accepted_total"], &status["duplicate_total"]), (&json!(1), &json!(19)));
}

#[tokio::test]
async fn every_sender_names_its_messages_in_its_own_way() {
    let door = Door::open();
    let event = r#"{"action":"opened","issue":{"number":1,"title":"t"},"repository":{"full_name":"a/b"}}"#;
    let github =
        [door.github("d-1", "issues", event), door.github("d-1", "issues", event), door.github("d-2", "issues", event)];
    let mut ids = Vec::new();
    for request in github {
        ids.push(turn_id(&door.send(request).await.ok(202)));
    }
    assert!(ids[0] == ids[1] && ids[1] != ids[2], "{ids:?}");

    let said = |id: &str| json!({"type": "event_callback", "event_id": id, "event": {"text": "hi"}}).to_string();
    let first = turn_id(&door.send(door.slack(&said("Ev1"), now())).await.ok(202));
    let retried = door.slack(&said("Ev1"), now() - 1).header("x-slack-retry-num", "1");
    assert_eq!(turn_id(&door.send(retried).await.ok(202)), first);
    assert_ne!(turn_id(&door.send(door.slack(&said("Ev2"), now())).await.ok(202)), first);

    // Where the check names no message the caller may: then another body under its name is a mistake.
    let keyed = |body: &str| door.send(door.shared(body).header("idempotency-key", "k"));
    let first = turn_id(&keyed(r#"{"text":"x"}"#).await.ok(202));
    assert_eq!(turn_id(&keyed(r#"{"text":"x"}"#).await.ok(202)), first);
    keyed(r#"{"text":"y"}"#).await.refused(409, "idempotency_key_reused");
    let unnamed = turn_id(&door.send(door.shared(r#"{"text":"x"}"#)).await.ok(202));
    assert_ne!(unnamed, first);
}

#[tokio::test]
async fn a_route_reaches_only_sessions_under_its_prefix() {
    let door = Door::open();
    door.server.message("webhook:other:x", json!({"text": "mine"})).await;
    let to = |key: &str| door.shared(&json!({"text": "x", "session_key": key}).to_string());
    for key in ["main", "webhook:other:x", "team", "teams:a", "Team:a", "x:team:a"] {
        door.send(to(key)).await.refused(403, "session_not_allowed");
    }
    for key in ["team:a/../b", "team:a b", "", "team:\u{e4}"] {
        door.send(to(key)).await.refused(400, "invalid_id");
    }
    assert_eq!(door.send(to("team:a")).await.ok(202)["turn"]["session"], "team:a");
    let by = |sender: &str| door.shared(&json!({"text": "x", "sender": sender}).to_string());
    for (sender, key) in
        [("bob", "team:bob"), ("../main", "team:..@@2fmain"), ("a:b", "team:a@@3ab"), (" ", "team:default")]
    {
        assert_eq!(door.send(by(sender)).await.ok(202)["turn"]["session"], key);
    }
    let event = |name: &str, number: &str| {
        let issue = json!({"number": number, "title": "t"});
        json!({"action": "a", "issue": issue, "repository": {"full_name": name}}).to_string()
    };
    // Both would be `acme:site:7` if a value could hold a separator.
    for (delivery, name, number, key) in [
        ("d-1", "acme:site", "7", "webhook:github:acme@@3asite:7"),
        ("d-2", "acme", "site:7", "webhook:github:acme:site@@3a7"),
        ("d-3", "acme/site", "7", "webhook:github:acme@@2fsite:7"),
    ] {
        let turn = door.send(door.github(delivery, "issues", &event(name, number))).await.ok(202);
        assert_eq!(turn["turn"]["session"], key);
    }
    let long = door.send(door.github("d-4", "issues", &event(&"x".repeat(500), "7"))).await.ok(202);
    assert_eq!(str_of(&long["turn"], "session").len(), 200);
}

#[tokio::test]
async fn slacks_challenge_is_answered_once_its_signature_is_right() {
    let door = Door::open();
    let body = json!({"type": "url_verification", "token": "x", "challenge": "3eZbrw1aB"}).to_string();
    door.send(door.call("slack", body.clone())).await.refused(401, "missing_credentials");
    door.send(door.slack(&body, now() - 1000)).await.refused(401, "invalid_signature");
    let reply = door.send(door.slack(&body, now())).await;
    assert_eq!((reply.ok(200), reply.header("content-type")), (json!({"challenge": "3eZbrw1aB"}), "application/json"));
    // Elsewhere it is a body like any other.
    door.send(door.shared(&body)).await.refused(400, "missing_text");
    assert_eq!(door.sessions().await, 0);
}

#[tokio::test]
async fn github_may_send_a_form_and_a_ping() {
    let door = Door::open();
    let ping = r#"{"zen":"Keep it logically awesome."}"#;
    let pong = door.send(door.github("d-1", "ping", ping)).await.ok(200);
    assert_eq!(pong, json!({"ignored": true, "reason": "ping"}));
    let event = r#"{"action":"a b","issue":{"number":1,"title":"50%+1"},"repository":{"full_name":"x"}}"#;
    let form: String =
        reqwest::Url::parse_with_params("http://x", [("payload", event)]).unwrap().query().unwrap().into();
    let mut request = door.github("d-2", "issues", &form).build().unwrap();
    let kind = "application/x-www-form-urlencoded".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    let request = reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request);
    assert_eq!(door.send(request).await.ok(202)["turn"]["text"], "a b 50%+1");
    assert_eq!(door.status("github").await["ignored_total"], 1);
}

#[tokio::test]
async fn bodies_that_a_route_cannot_take_are_told_so() {
    let door = Door::with(
        "[limits]\nmax_body = \"2KiB\"\n[webhooks.shared]\nverify = \"secret\"\nsecret_env = \"HOOK_SECRET\"\n\
         text = \"{{ a.b }}\"\nwhen = \"wanted != false\"\n[webhooks.plain]\nverify = \"none\"\n[webhooks.off]\nenabled = false\n",
        &[],
    );
    let misfit = door.send(door.shared(r#"{"a":{}}"#)).await.refused(400, "invalid_json");
    assert!(str_of(&misfit, "message").contains("`a.b` is undefined") && misfit["field"] == "text", "{misfit}");
    door.send(door.shared(r#"{"a":{"b":" "}}"#)).await.refused(400, "missing_text");
    door.send(door.shared("{")).await.refused(400, "invalid_json");
    assert_eq!(door.send(door.shared(r#"{"wanted":false}"#)).await.ok(200), json!({"ignored": true, "reason": "when"}));
    let text = door.shared("{}").header("content-type", "text/plain");
    door.send(text).await.refused(415, "unsupported_media_type");
    let plain = |body: &str| door.send(door.call("plain", body.to_owned()));
    for body in ["", "{}", r#"{"text":""}"#] {
        plain(body).await.refused(400, "missing_text");
    }
    for body in [r#"{"text":5}"#, r#"{"text":"x","metadata":"y"}"#, "5", "null"] {
        plain(body).await.refused(400, "invalid_json");
    }
    // Longer than any body may be, signed or not.
    let long = json!({"text": "x".repeat(4096)}).to_string();
    door.send(door.shared(&long)).await.refused(413, "body_too_large");
    door.send(door.call("plain?wait=soon", "{}")).await.refused(400, "invalid_parameter");
    for route in ["off", "nobody", "shared/x"] {
        door.send(door.call(route, "{}")).await.refused(404, "route_not_found");
    }
    door.server.get("/webhooks/plain").await.refused(405, "method_not_allowed");
    assert_eq!(door.sessions().await, 0);
    assert_eq!(door.status("shared").await["ignored_total"], 1);
}

#[tokio::test]
async fn a_route_without_a_check_is_for_this_machine() {
    let door = Door::open();
    let body = r#"{"text":"x"}"#;
    door.send(door.call("here", body)).await.ok(202);
    for (name, value) in [("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9"), ("via", "1.1 proxy")] {
        door.send(door.call("here", body).header(name, value)).await.refused(401, "missing_credentials");
    }
    // A page in a browser of this machine is not from here.
    door.send(door.call("here", body).header("origin", "https://evil.example"))
        .await
        .refused(403, "origin_not_allowed");
    door.send(door.call("here", body).header("host", "evil.example")).await.refused(403, "host_not_allowed");
    // The policy of the route counts.
    door.server.hang("webhook:here:busy", json!({})).await;
    let busy = json!({"text": "x", "session_key": "webhook:here:busy"}).to_string();
    door.send(door.call("here", busy)).await.refused(409, "session_busy");
}

#[tokio::test]
async fn a_route_acts_for_its_user_as_long_as_that_one_may() {
    let mut door = Door::open();
    let run = |door: &Door, arguments: &[&str]| {
        let data = door.server.data_dir();
        let output = door.greenroom(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let alice = run(&door, &["token", "create", "--user", "alice"]);
    let carol = run(&door, &["token", "create", "--user", "carol"]);
    let root = run(&door, &["token", "create", "--user", "root", "--scopes", "admin"]);
    door.server.signal(nix::sys::signal::Signal::SIGTERM);
    door.server.exit().await;
    door.server.restart_with(&[("GREENROOM_WEBHOOKS__SHARED__OWNER", "alice")]);

    let waited =
        door.send(door.call("shared?wait=60", r#"{"text":"x"}"#).header("x-webhook-secret", SHARED)).await.ok(200);
    assert_eq!(waited["response"], "x", "no token is needed");
    let see = |token: &str, key: &str| {
        door.send(door.server.request("GET", &format!("/v1/sessions/{key}")).bearer_auth(token))
    };
    assert_eq!(see(&alice, "team:default").await.ok(200)["owner"], "alice");
    see(&carol, "team:default").await.refused(404, "session_not_found");
    // A route that acts for nobody's sessions are for admins alone.
    door.send(door.call("here", r#"{"text":"x"}"#)).await.ok(202);
    see(&alice, "webhook:here:default").await.refused(404, "session_not_found");
    assert_eq!(see(&root, "webhook:here:default").await.ok(200)["owner"], "local");
    // A session of somebody else under the prefix stays theirs.
    let body = json!({"key": "team:carols"});
    door.send(door.server.request("POST", "/v1/sessions").bearer_auth(&carol).json(&body)).await.ok(201);
    door.send(door.shared(r#"{"text":"x","session_key":"team:carols"}"#)).await.refused(404, "session_not_found");
    let audit =
        door.send(door.server.request("GET", "/v1/audit?session=team:default").bearer_auth(&root)).await.ok(200);
    assert_eq!((&audit["data"][0]["actor"], &audit["data"][0]["action"]), (&json!("alice"), &json!("turn.send")));

    run(&door, &["user", "disable", "alice"]);
    door.send(door.shared(r#"{"text":"x"}"#)).await.refused(403, "session_not_allowed");
    run(&door, &["user", "enable", "alice"]);
    door.send(door.shared(r#"{"text":"x"}"#)).await.ok(202);
}

#[tokio::test]
async fn what_a_template_shows_is_not_what_lets_somebody_in() {
    let door = Door::with(
        "[webhooks.shared]\nverify = \"secret\"\nsecret_env = \"HOOK_SECRET\"\ntext = \"{{ headers | tojson }}\"\n",
        &[],
    );
    let request = door.shared("{}").header("x-shown", "yes").bearer_auth("gr_hidden");
    let turn = door.send(request).await.ok(202);
    let shown: Value = serde_json::from_str(str_of(&turn["turn"], "text")).unwrap();
    assert_eq!(shown["x-shown"], "yes");
    assert!(!shown.to_string().contains("hidden") && !shown.to_string().contains(SHARED), "{shown}");
}

#[tokio::test]
async fn the_end_of_a_turn_is_told_where_the_route_says_also_after_a_crash() {
    let receiver = Receiver::start().await;
    let routes = format!(
        "[webhooks.shared]\nverify = \"secret\"\nsecret_env = \"HOOK_SECRET\"\nreply_url = {:?}\nreply_secret = {OTHER:?}\n\
         [webhooks.silent]\nverify = \"none\"\n",
        receiver.url()
    );
    let mut door = Door::with(&routes, QUICK);
    let turn = turn_id(&door.send(door.shared(r#"{"text":"how are you?"}"#)).await.ok(202));
    let seen = receiver.wait(1).await;
    assert!(seen[0].is_signed(OTHER) && !seen[0].is_signed(STANDARD), "{seen:?}");
    let event = seen[0].event();
    assert_eq!((str_of(&event, "turn_id"), str_of(&event, "response")), (turn.as_str(), "how are you?"));
    assert_eq!((str_of(&event, "type"), &event["data"]["state"]), ("turn.finished", &json!("completed")));

    // Neither another route's turns nor those of a client in the same session are told.
    door.send(door.call("silent", r#"{"text":"x"}"#)).await.ok(202);
    door.server.run("webhook:shared:default", json!({"text": "by hand"})).await;
    let slow = json!({"text": r#"/script {"deltas":40,"delay_ms":25,"text":"late"}"#, "sender": "slow"}).to_string();
    let turn = turn_id(&door.send(door.shared(&slow)).await.ok(202));
    door.server.kill9();
    door.server.restart();
    let seen = receiver.wait(2).await;
    let event = seen[1].event();
    // It was cut off, or it had not begun: either way there is one end, and it is told.
    assert_eq!(str_of(&event, "turn_id"), turn);
    assert!(["interrupted", "completed"].contains(&str_of(&event["data"], "state")), "{event}");
}
