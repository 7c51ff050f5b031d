//! Talking: streamed text, reasoning, one conversation, tokens, two at once, commands.

use serde_json::json;

use super::Went;
use crate::{
    gateway::eventually,
    mock_llm::Request,
    rig::Rig,
    subject::{Subject, Variant},
    talk::{HELLO, Told},
};

pub async fn first_token(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let told = rig.told(&key, "hi").await;
    told.assert_state("completed");
    assert_eq!(told.said(), HELLO);
    let pieces = told.count("message.delta");
    rig.give_back(key);
    if pieces > 1 { Went::Well } else { Went::Without("streaming") }
}

pub async fn conversation(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let (first, second) = (word(), word());
    assert_eq!(rig.answer(&key, format!("PLAIN the first word is {first}")).await, HELLO);
    assert_eq!(rig.answer(&key, format!("PLAIN the second word is {second}")).await, HELLO);
    let requests = requests_with(&rig, &second);
    assert!(
        requests.iter().any(|request| request.body.to_string().contains(&first)),
        "it has forgotten: {requests:#?}"
    );
    let messages = rig.server.get(&format!("/v1/sessions/{key}/messages?limit=4")).await.ok(200);
    assert_eq!(messages["data"][0]["parts"][0]["text"], HELLO, "{messages}");
    rig.give_back(key);
    Went::Well
}

pub async fn reasoning(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let told = rig.told(&key, "THINK about it").await;
    told.assert_state("completed");
    assert_eq!(told.said(), HELLO);
    let thought = crate::gateway::wire::said(&told.events, &told.turn, "reasoning");
    rig.give_back(key);
    match thought.trim() {
        "" => Went::Without("reasoning"),
        thought => {
            // Some take it for Markdown.
            assert_eq!(thought.replace('*', "").split_whitespace().collect::<Vec<_>>(), ["let", "me", "think"]);
            Went::Well
        }
    }
}

/// A turn of two model calls, then one of one: each tells its own tokens, and the session their sum.
pub async fn usage(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    let before = rig.server.snapshot(&key).await["usage"].clone();
    let (first, second) = (word(), word());
    let talk = rig.talk(&key, format!("USE_TOOL TOOL_CMD:[touch {first}] and say {first}")).await;
    let told = talk.end_with(json!({"allow": true})).await;
    told.assert_state("completed");
    let calls = requests_with(&rig, &first);
    let after = rig.told(&key, format!("PLAIN {second}")).await;
    after.assert_state("completed");
    let last = requests_with(&rig, &second);
    let again = rig.told(&key, "PLAIN again").await;
    let reported = |told: &Told| (told.usage("input_tokens").unwrap(), told.usage("output_tokens").unwrap());
    let (one, two, three) = (reported(&told), reported(&after), reported(&again));
    let total = &rig.server.snapshot(&key).await["usage"];
    let more = |field: &str| total[field].as_u64().unwrap() - before[field].as_u64().unwrap();
    let total = (more("input_tokens"), more("output_tokens"));
    assert_eq!(total, (one.0 + two.0 + three.0, one.1 + two.1 + three.1));
    rig.give_back(key);
    if one.0 == 0 && two.0 == 0 {
        assert!(after.usage("context_used") > Some(0), "{:?}", after.finished());
        return Went::Without("tokens");
    }
    let sum = |requests: &[Request]| {
        requests.iter().map(Request::reported).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    };
    assert_eq!(two, sum(&last), "of {} calls", last.len());
    if calls.len() > 1 && one == sum(&calls[calls.len() - 1..]) {
        return Went::Without("all calls of a turn");
    }
    assert_eq!(one, sum(&calls), "of {} calls", calls.len());
    Went::Well
}

/// Both have begun before either ends, and each is stopped on its own.
pub async fn parallel(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let (one, two) = (rig.session().await, rig.session().await);
    let (mut first, mut second) = (rig.talk(&one, "SLOW").await, rig.talk(&two, "SLOW").await);
    first.speaks().await;
    second.speaks().await;
    first.cancel().await;
    first.end().await.assert_state("cancelled");
    // The end of the one has not touched the other.
    second.speaks().await;
    second.cancel().await;
    second.end().await.assert_state("cancelled");
    for key in [one, two] {
        rig.assert_usable(&key).await;
        rig.give_back(key);
    }
    Went::Well
}

/// Some tell their commands only after the first turn has begun.
pub async fn commands(subject: Subject) -> Went {
    let rig = Rig::shared(subject, Variant::Usual);
    let key = rig.session().await;
    rig.assert_usable(&key).await;
    if !subject.has_commands() {
        let listed = rig.server.get(&format!("/v1/sessions/{key}/commands")).await.ok(200);
        rig.give_back(key);
        return if listed["data"].as_array().unwrap().is_empty() { Went::Without("commands") } else { Went::Well };
    }
    let ask = || async {
        let listed = rig.server.get(&format!("/v1/sessions/{key}/commands")).await.ok(200);
        Some(listed["data"].as_array().unwrap().clone()).filter(|commands| !commands.is_empty())
    };
    let commands = eventually("its commands", ask).await;
    assert!(commands.iter().all(|command| command["name"].is_string()), "{commands:?}");
    rig.give_back(key);
    Went::Well
}

/// A word that no other text has in it.
pub fn word() -> String {
    format!("word{}", uuid::Uuid::now_v7().simple())
}

/// The calls of the conversation itself that have a word in them. Agents make others for titles and the like; those offer
/// no tools.
pub fn requests_with(rig: &Rig, word: &str) -> Vec<Request> {
    let mut requests = rig.mock.generations();
    requests.retain(|request| is_of_conversation(rig.subject, request) && request.body.to_string().contains(word));
    requests
}

/// True for a call of the conversation itself.
pub fn is_of_conversation(subject: Subject, request: &Request) -> bool {
    let text = request.body.to_string();
    // Some let the model guess what the user will type next.
    let guesses = text.contains("NEVER SUGGEST");
    let offers = request.body["tools"].as_array().is_some_and(|tools| !tools.is_empty());
    !guesses && (offers || !subject.has_tools())
}
