//! Attacks that servers of this kind have suffered, each as its attacker would try it.
//!
//! The timing of secrets has no test of the clock, which would prove nothing here: secrets are looked up by the first bytes
//! of their SHA-256, which nobody can choose, and compared by `subtle` (`src/secret.rs`, `src/access/book.rs`).

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;

use crate::{
    browsers::{cookie_of, log_in},
    gateway::{Socket, Sse, str_of},
    people::{House, greenroom, token},
};

const EVIL: &str = "http://evil.example";

#[tokio::test]
async fn dns_rebinding_gets_nothing_even_with_credentials() {
    let house = House::new();
    let cookie = log_in(&house, &house.alice).await;
    // The name of the attacker now resolves to this machine: for the browser it is the attacker's own site.
    for host in ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example"] {
        for path in ["/v1/me", "/v1/sessions", "/health", "/v1/ws"] {
            let request = house.server.request("GET", path).header("host", host);
            house.server.send(request.header("cookie", &cookie)).await.refused(403, "host_not_allowed");
        }
        let login = house.server.request("POST", "/v1/login").header("host", host);
        house.server.send(login.json(&json!({"token": house.alice}))).await.refused(403, "host_not_allowed");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_open_a_socket_with_this_browsers_login() {
    let house = House::new();
    let cookie = log_in(&house, &house.alice).await;
    for path in ["/v1/ws", "/v1/sessions/main/ws"] {
        for origin in [EVIL, "null", "http://localhost:1", "https://127.0.0.1"] {
            let refused = Socket::try_open(&house.server, path, &[("cookie", &cookie), ("origin", origin)]).await.err();
            let refused = refused.unwrap_or_else(|| panic!("{origin} got a socket"));
            assert!(matches!(&*refused, Error::Http(answer) if answer.status() == 403), "{origin}: {refused}");
        }
    }
    let own = format!("http://{}", house.server.address());
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &[("cookie", &cookie), ("origin", &own)]).await.unwrap();
    socket.ok(json!({"op": "ping"})).await;
    // A token in the subprotocols is no way around the origin.
    let protocols = format!("greenroom.v1, bearer.{}", house.alice);
    let headers = [("sec-websocket-protocol", protocols.as_str()), ("origin", EVIL)];
    assert!(Socket::try_open(&house.server, "/v1/ws", &headers).await.is_err());
}

#[tokio::test]
async fn no_origin_is_let_in_by_wildcard_and_none_with_cookies() {
    let chat = "https://chat.example.org";
    let house = House::with(&[("GREENROOM_SERVER__ALLOWED_ORIGINS", &format!("[{chat:?}]"))]);
    let preflight = async |origin: &str| {
        let request = house.server.request("OPTIONS", "/v1/sessions").header("origin", origin.to_owned());
        let request = request.header("access-control-request-method", "POST");
        house.server.send(request.header("access-control-request-headers", "authorization,content-type")).await
    };
    for origin in [EVIL, "null", "https://chat.example.org.evil.example", "http://chat.example.org"] {
        let refused = preflight(origin).await;
        refused.refused(403, "origin_not_allowed");
        assert_eq!(refused.header("access-control-allow-origin"), "", "{origin}");
    }
    // A preflight has no credentials and needs none.
    let allowed = preflight(chat).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (204, chat));
    assert!(allowed.header("access-control-allow-headers").contains("authorization"), "{allowed:?}");
    assert!(allowed.header("access-control-allow-methods").contains("DELETE"), "{allowed:?}");
    assert!(allowed.header("vary").contains("origin"), "{allowed:?}");
    let answered =
        house.server.send(house.server.request("GET", "/v1/me").bearer_auth(&house.alice).header("origin", chat)).await;
    answered.ok(200);
    assert_eq!(answered.header("access-control-allow-origin"), chat);
    for reply in [&allowed, &answered] {
        assert_eq!(reply.header("access-control-allow-credentials"), "", "{reply:?}");
    }
    // A page may read why it was refused.
    let unknown = house.server.send(house.server.request("GET", "/v1/me").header("origin", chat)).await;
    unknown.refused(401, "missing_credentials");
    assert_eq!(unknown.header("access-control-allow-origin"), chat);
}

#[tokio::test]
async fn a_wildcard_origin_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_greenroom"));
    command.arg("--data-dir").arg(dir.path()).env_clear().env("HOME", dir.path());
    let output = command.env("GREENROOM_SERVER__ALLOWED_ORIGINS", r#"["*"]"#).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("allowed_origins"), "{output:?}");
}

#[tokio::test]
async fn a_cookie_that_was_planted_before_the_login_is_worth_nothing_after_it() {
    let house = House::new();
    let planted = "greenroom=grc_planted-by-the-attacker";
    let login = house.server.request("POST", "/v1/login").header("cookie", planted);
    let reply = house.server.send(login.json(&json!({"token": house.alice}))).await;
    reply.ok(200);
    let cookie = cookie_of(&reply);
    assert_ne!(cookie, planted);
    let with =
        async |cookie: &str| house.server.send(house.server.request("GET", "/v1/me").header("cookie", cookie)).await;
    with(planted).await.refused(401, "invalid_credentials");
    with(&cookie).await.ok(200);
    // A second cookie of that name, as a page on another port of this host can set, is not chosen by its place.
    with(&format!("{planted}; {cookie}")).await.refused(401, "missing_credentials");
    with(&format!("{cookie}; {planted}")).await.refused(401, "missing_credentials");
    // A cookie is no token and a token no cookie.
    let value = cookie.split_once('=').unwrap().1;
    house.get(value, "/v1/me").await.refused(401, "invalid_credentials");
    with(&format!("greenroom={}", house.alice)).await.refused(401, "invalid_credentials");
}

#[tokio::test]
async fn who_guesses_is_slowed_down_and_who_is_right_is_not() {
    let house = House::with(&[("GREENROOM_CALLERS__WRONG_CREDENTIALS", "3")]);
    let guess = || house.server.post("/v1/login", json!({"token": "gr_guess"}));
    guess().await.refused(401, "invalid_credentials");
    house.get("gr_guess", "/v1/me").await.refused(401, "invalid_credentials");
    let mut refused = guess().await;
    for _ in 0..50 {
        if refused.status == 429 {
            break;
        }
        refused = guess().await;
    }
    assert_eq!(refused.refused(429, "rate_limited")["of"], "wrong_credentials");
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1, "{refused:?}");
    house.get(&house.alice, "/v1/me").await.ok(200);
    log_in(&house, &house.alice).await;
    crate::gateway::eventually("the entry of a refused login", || async {
        let page = house.get(&house.root, "/v1/audit?action=login.refused").await;
        let entry = page.ok(200)["data"][0].clone();
        (entry["ip"] == "127.0.0.1" && entry["actor"] == "").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_configured_origin_calls_with_a_token_and_never_with_the_cookie() {
    let chat = "https://chat.example.org";
    let house = House::with(&[("GREENROOM_SERVER__ALLOWED_ORIGINS", r#"["https://chat.example.org"]"#)]);
    let cookie = log_in(&house, &house.alice).await;
    let call = async |name: &str, value: &str, site: Option<&str>| {
        let request = house.server.request("GET", "/v1/me").header(name, value).header("origin", chat);
        house.server.send(site.into_iter().fold(request, |request, site| request.header("sec-fetch-site", site))).await
    };
    for site in [None, Some("cross-site"), Some("same-site")] {
        call("cookie", &cookie, site).await.refused(403, "origin_not_allowed");
        call("authorization", &format!("Bearer {}", house.alice), site).await.ok(200);
    }
    // The server itself behind a proxy that has taken TLS off.
    call("cookie", &cookie, Some("same-origin")).await.ok(200);
}

#[tokio::test]
async fn another_site_cannot_act_with_this_browsers_login() {
    let house = House::new();
    let cookie = log_in(&house, &house.alice).await;
    house.post(&house.alice, "/v1/sessions", json!({"key": "k"})).await.ok(201);
    let forged = async |method: &str, path: &str, headers: &[(&str, &str)]| {
        let request = house.server.request(method, path).header("cookie", &cookie);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        house.server.send(if method == "POST" { request.json(&json!({})) } else { request }).await
    };
    for (method, path) in
        [("POST", "/v1/me/tokens"), ("POST", "/v1/sessions"), ("DELETE", "/v1/sessions/k"), ("POST", "/v1/logout")]
    {
        forged(method, path, &[("origin", EVIL)]).await.refused(403, "origin_not_allowed");
        forged(method, path, &[("origin", "null")]).await.refused(403, "origin_not_allowed");
        for site in ["cross-site", "same-site"] {
            forged(method, path, &[("sec-fetch-site", site)]).await.refused(403, "origin_not_allowed");
        }
    }
    // What a form can send is no body of this server, whatever it says it is.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let form = house.server.request("POST", "/v1/sessions").header("cookie", &cookie).header("content-type", kind);
        house.server.send(form.body("{}")).await.refused(415, "unsupported_media_type");
    }
    let own = format!("http://{}", house.server.address());
    forged("POST", "/v1/sessions", &[("origin", &own), ("sec-fetch-site", "same-origin")]).await.ok(201);
    forged("GET", "/v1/me", &[("sec-fetch-site", "none")]).await.ok(200);
    // Another site cannot log this browser in as somebody else either.
    let login = house.server.request("POST", "/v1/login").header("origin", EVIL);
    house.server.send(login.json(&json!({"token": house.alice}))).await.refused(403, "origin_not_allowed");
}

#[tokio::test]
async fn tokens_are_neither_taken_from_urls_nor_written_to_logs() {
    let house = House::with(&[("GREENROOM_LOG", "trace")]);
    let cookie = log_in(&house, &house.alice).await;
    for name in ["token", "access_token", "bearer", "authorization", "api_key"] {
        let path = format!("/v1/me?{name}={}", house.alice);
        house.server.get(&path).await.refused(401, "missing_credentials");
    }
    house.get(&house.alice, "/v1/me").await.ok(200);
    let protocols = format!("greenroom.v1, bearer.{}", house.bob);
    let headers = [("sec-websocket-protocol", protocols.as_str())];
    let mut socket = Socket::try_open(&house.server, "/v1/ws", &headers).await.unwrap();
    socket.ok(json!({"op": "ping"})).await;
    house.server.post("/v1/login", json!({"token": "gr_a-wrong-token"})).await.refused(401, "invalid_credentials");
    house.server.post("/v1/login", json!({"tokens": &house.carol})).await.refused(400, "invalid_json");
    house.server.send(house.server.request("GET", "/v1/me").header("cookie", &cookie)).await.ok(200);
    let made = house.server.request("POST", "/v1/me/tokens").header("cookie", &cookie);
    let made = house.server.send(made.json(&json!({}))).await.ok(201);
    greenroom(&house.server, &["token", "list"]);
    let log = house.server.log();
    assert!(log.contains("DEBUG") || log.contains("TRACE"), "nothing was logged: {log}");
    let cookie = cookie.split_once('=').unwrap().1;
    for secret in [house.alice.as_str(), &house.bob, &house.carol, "gr_a-wrong-token", cookie, str_of(&made, "token")] {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "a secret is in the log: {line:?}");
    }
    // Nor is any of them on the disk.
    for entry in std::fs::read_dir(house.server.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { continue };
        for secret in [house.alice.as_str(), cookie, str_of(&made, "token")] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "a secret is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn a_cursor_of_one_session_replays_nothing_of_another() {
    let house = House::new();
    let secret = json!({"text": "the secret of alice"});
    house.post(&house.alice, "/v1/sessions/mine/messages?wait=60", secret).await.ok(200);
    house.post(&house.carol, "/v1/sessions/hers/messages?wait=60", json!({"text": "hi"})).await.ok(200);
    let carol = format!("Bearer {}", house.carol);
    // Whatever the cursor, the path decides whose stream it is, and the owner who sees it.
    for cursor in ["0", "1", "3", "9999"] {
        let refused = house.request(&house.carol, "GET", "/v1/sessions/mine/events", Value::Null);
        house.server.send(refused.header("last-event-id", cursor)).await.refused(404, "session_not_found");
        let headers = [("authorization", carol.as_str()), ("last-event-id", cursor)];
        let mut stream = Sse::open_with(&house.server, "/v1/sessions/hers/events", &headers).await;
        house.post(&house.carol, "/v1/sessions/hers/messages", json!({"text": "more"})).await.ok(202);
        let seen = stream.until(|event| event["type"] == "turn.finished" && event["data"]["summary"] == "more").await;
        assert!(seen.iter().all(|event| event["session"] == "hers"), "{seen:?}");
        assert!(!json!(seen).to_string().contains("secret"), "{seen:?}");
    }
    let mut socket =
        Socket::try_open(&house.server, "/v1/sessions/mine/ws?after=0", &[("authorization", &carol)]).await.unwrap();
    assert_eq!(socket.close().await.0, 4004);
    // Nor does a repeated call of somebody else's give its outcome.
    let send = async |token: &str, key: &str| {
        let request = house.request(token, "POST", &format!("/v1/sessions/{key}/messages"), json!({"text": "once"}));
        house.server.send(request.header("idempotency-key", "shared")).await
    };
    send(&house.alice, "mine").await.ok(202);
    send(&house.carol, "mine").await.refused(404, "session_not_found");
    send(&house.carol, "hers").await.ok(202);
}

#[tokio::test]
async fn tricks_with_paths_reach_no_other_key() {
    let house = House::new();
    house.post(&house.alice, "/v1/sessions", json!({"key": "mine"})).await.ok(201);
    let raw = async |target: &str| {
        let address = house.server.address();
        let head = format!(
            "GET {target} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
            house.carol
        );
        house.server.raw(head.as_bytes()).await
    };
    for target in [
        "/v1/sessions/x/../mine",
        "/v1/sessions/x/%2e%2e/mine",
        "/v1/sessions/x%2f..%2fmine",
        "/v1/sessions/..%2fmine",
        "/v1/sessions//mine",
        "//v1/sessions/mine",
        "/v1/sessions/mine/",
        "/v1/sessions/mine%00",
        "/v1/sessions/mine%0a",
        "/v1/sessions/%6dine",
        "/v1/sessions/mine;x=1",
        "/v1/./sessions/mine",
        "/V1/sessions/mine",
        "/v1/sessions/mine%252f",
    ] {
        let answer = raw(target).await;
        let status: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((400..500).contains(&status), "{target}: {answer}");
        assert!(!answer.contains("\"owner\""), "{target}: {answer}");
    }
    // A header that other servers take for a key does nothing here.
    let request = house.request(&house.carol, "GET", "/v1/sessions/none", Value::Null);
    house.server.send(request.header("x-session-key", "mine")).await.refused(404, "session_not_found");
}

#[tokio::test]
async fn slow_and_huge_heads_are_cut_and_cost_nobody_else() {
    let house = House::with(&[("GREENROOM_LIMITS__HEAD_TIMEOUT", "1s")]);
    let address = house.server.address();
    let mut slow = Vec::new();
    for _ in 0..50 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /v1/me HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
        slow.push(stream);
    }
    house.get(&house.alice, "/v1/me").await.ok(200);
    for mut stream in slow {
        let mut answer = Vec::new();
        // It is cut without the client having sent another byte; how does not matter.
        let _ = crate::gateway::in_time("the end of a slow request", stream.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 408 "), "{text}");
    }
    for (name, value) in [("x-big", "a".repeat(1 << 20)), ("authorization", format!("Bearer {}", "a".repeat(1 << 20)))]
    {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!("GET /v1/me HTTP/1.1\r\nhost: localhost\r\n{name}: {value}\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        crate::gateway::in_time("the end of a huge head", async {
            // The server may close before it has read all.
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.read_to_end(&mut answer).await;
        })
        .await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    let many: String = (0..500).map(|number| format!("x-{number}: y\r\n")).collect();
    let answer = house
        .server
        .raw(format!("GET /v1/me HTTP/1.1\r\nhost: localhost\r\n{many}connection: close\r\n\r\n").as_bytes())
        .await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    house.get(&house.alice, "/v1/me").await.ok(200);
}

/// Heads that are no HTTP: the framework answers them before there is a request, so the answer is bare. What matters: it
/// tells nothing, and the connection is closed, so that nothing behind it is taken for a request.
#[tokio::test]
async fn heads_that_are_no_http_get_a_bare_status_and_a_closed_connection() {
    let house = House::new();
    let smuggled = "GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let headers = |count: usize| (0..count).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    for (status, head) in [
        ("400", "BAD\r\n\r\n".to_owned()),
        ("400", "GET /v1/me HTTP/9.9\r\nhost: localhost\r\n\r\n".to_owned()),
        ("400", "GET /v1/me HTTP/1.1\r\nho st: localhost\r\n\r\n".to_owned()),
        ("400", "GET /v1/me HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n".to_owned()),
        ("431", format!("GET /v1/me HTTP/1.1\r\nhost: localhost\r\n{}\r\n", headers(96))),
    ] {
        let answer = house.server.raw(format!("{head}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:.80}: {answer}");
        assert!(answer.contains("content-length: 0\r\n") && answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n") && answer.matches("HTTP/1.1").count() == 1, "one answer: {answer}");
    }
    let most = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}connection: close\r\n\r\n", headers(94));
    assert!(house.server.raw(most.as_bytes()).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn answers_tell_browsers_to_be_careful() {
    let house = House::new();
    for reply in [
        house.get(&house.alice, "/v1/me").await,
        house.server.get("/v1/me").await,
        house.server.get("/health").await,
        house.server.get("/nowhere").await,
        house.server.send(house.server.request("GET", "/v1/me").header("origin", EVIL)).await,
    ] {
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{reply:?}");
        assert_eq!(reply.header("x-frame-options"), "DENY", "{reply:?}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{reply:?}");
        assert_eq!(reply.header("content-security-policy"), "default-src 'none'; frame-ancestors 'none'", "{reply:?}");
        assert_eq!(reply.header("cache-control"), "no-store", "{reply:?}");
    }
}

#[tokio::test]
async fn a_token_of_the_webhooks_is_good_for_nothing_else() {
    let house = House::new();
    let hook = token(&house.server, "alice", "webhook");
    house.get(&hook, "/v1/sessions").await.refused(403, "missing_scope");
    house.post(&hook, "/v1/sessions", json!({})).await.refused(403, "missing_scope");
    house.get(&hook, "/v1/audit").await.refused(403, "missing_scope");
    assert_eq!(house.get(&hook, "/v1/me").await.ok(200)["scopes"], json!(["webhook"]));
}
