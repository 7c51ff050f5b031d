//! A turn told as a chat completion: chunk by chunk, or whole. Pure.
//!
//! What the agent thinks is told as `reasoning_content`, as other servers of this interface do. Texts before and after
//! a tool call follow each other, as in the answer of a turn.

use std::mem::take;

use serde_json::{Value, json};

use super::{
    ending::{Ending, chat_usage, error_object},
    json_text, suffix,
};
use crate::{
    doors::narration::Narrator,
    error::ApiError,
    ids::TurnId,
    protocol::{Event, EventBody, Usage, event::DeltaKind, frame::EndReason},
    timestamp::Timestamp,
};

/// What a completion says of itself.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its id.
    id: String,
    /// Seconds since 1970.
    created: i64,
    /// The model as it was asked for.
    model: String,
}

impl Head {
    /// Of a turn that was accepted at that time.
    #[must_use]
    pub fn new(turn: TurnId, at: Timestamp, model: String) -> Self {
        Self { id: format!("chatcmpl-{}", suffix(turn)), created: at.0.div_euclid(1_000_000), model }
    }
}

/// Tells a turn as `chat.completion.chunk` events.
pub struct Chunks {
    /// What every chunk begins with.
    head: Vec<u8>,
    wants_usage: bool,
    begun: bool,
    end: Option<(Ending, Usage)>,
}

impl Chunks {
    /// A stream; with the usage in a last chunk where that is wanted.
    #[must_use]
    pub fn new(head: Head, wants_usage: bool) -> Self {
        let (id, created) = (head.id, head.created);
        let begin = format!(r#"data: {{"id":"{id}","object":"chat.completion.chunk","created":{created},"model":"#);
        let mut out = begin.into_bytes();
        json_text(&head.model, &mut out);
        out.extend_from_slice(br#","system_fingerprint":null,"#);
        Self { head: out, wants_usage, begun: false, end: None }
    }

    /// A chunk: `write` gives its delta, `reason` is JSON.
    fn chunk(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>), reason: &str) {
        out.extend_from_slice(&self.head);
        // Where the usage is wanted, every chunk has the field.
        out.extend_from_slice(if self.wants_usage { br#""usage":null,"# } else { b"" });
        out.extend_from_slice(br#""choices":[{"index":0,"delta":{"#);
        write(out);
        out.extend_from_slice(br#"},"logprobs":null,"finish_reason":"#);
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"}]}\n\n");
    }

    fn piece(&self, out: &mut Vec<u8>, name: &str, text: &str) {
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(name.as_bytes());
            json_text(text, out);
        };
        self.chunk(out, write, "null");
    }

    fn failed(&self, error: &ApiError, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("data: {}\n\n", json!({"error": error_object(error)})).as_bytes());
    }
}

impl Narrator for Chunks {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            let write = |out: &mut Vec<u8>| out.extend_from_slice(br#""role":"assistant","content":"""#);
            self.chunk(out, write, "null");
        }
        match &event.body {
            EventBody::MessageDelta { kind: DeltaKind::Text, delta, .. } => self.piece(out, r#""content":"#, delta),
            EventBody::MessageDelta { kind: DeltaKind::Reasoning, delta, .. } => {
                self.piece(out, r#""reasoning_content":"#, delta);
            }
            EventBody::TurnFinished { state, reason, error, usage, .. } => {
                self.end = Some((Ending::of(*state, reason.as_deref(), error.as_ref()), *usage));
            }
            _ => {}
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let (reason, usage) = match take(&mut self.end) {
            Some((Ending::Done(reason), usage)) => (reason, usage),
            Some((Ending::Failed(error), _)) => return self.failed(&error, out),
            None => return self.failed(&Ending::cut(EndReason::SessionFailed), out),
        };
        let reason = format!("\"{}\"", Ending::finish_reason(reason.as_deref()));
        self.chunk(out, |_| {}, &reason);
        if self.wants_usage {
            out.extend_from_slice(&self.head);
            out.extend_from_slice(format!("\"choices\":[],\"usage\":{}}}\n\n", chat_usage(&usage)).as_bytes());
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }

    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        self.failed(&Ending::cut(reason), out);
    }
}

/// Gathers a turn into one answer.
#[derive(Debug, Default)]
pub struct Whole {
    text: String,
    reasoning: String,
    end: Option<(Ending, Usage)>,
}

impl Whole {
    /// Takes up what an event means.
    pub fn event(&mut self, event: &Event) {
        match &event.body {
            EventBody::MessageDelta { kind: DeltaKind::Text, delta, .. } => self.text.push_str(delta),
            EventBody::MessageDelta { kind: DeltaKind::Reasoning, delta, .. } => self.reasoning.push_str(delta),
            EventBody::TurnFinished { state, reason, error, usage, .. } => {
                self.end = Some((Ending::of(*state, reason.as_deref(), error.as_ref()), *usage));
            }
            _ => {}
        }
    }

    /// The completion.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(self, head: &Head) -> Result<Value, ApiError> {
        let (reason, usage) = match self.end {
            Some((Ending::Done(reason), usage)) => (reason, usage),
            Some((Ending::Failed(error), _)) => return Err(error),
            None => return Err(Ending::cut(EndReason::SessionFailed)),
        };
        let mut message = json!({"role": "assistant", "content": self.text, "refusal": null, "annotations": []});
        if let (false, Some(fields)) = (self.reasoning.is_empty(), message.as_object_mut()) {
            fields.insert("reasoning_content".into(), self.reasoning.into());
        }
        let finish_reason = Ending::finish_reason(reason.as_deref());
        Ok(json!({
            "id": head.id, "object": "chat.completion", "created": head.created, "model": head.model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason}],
            "usage": chat_usage(&usage), "system_fingerprint": null,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::MessageId,
        protocol::{TurnError, TurnState},
    };

    pub fn event(body: EventBody) -> Event {
        Event { seq: 1, body, session: "a".parse().unwrap(), turn_id: None, at: Timestamp(0) }
    }

    fn delta(kind: DeltaKind, text: &str) -> Event {
        event(EventBody::MessageDelta { message_id: MessageId::new(), part: 0, kind, delta: text.into() })
    }

    fn finished(state: TurnState, reason: Option<&str>, error: Option<&str>) -> Event {
        let error = error.map(|message| TurnError { code: "agent_error".into(), message: message.into() });
        let usage = Usage { input_tokens: 3, output_tokens: 4, ..Usage::default() };
        event(EventBody::TurnFinished { state, reason: reason.map(str::to_owned), error, usage, summary: None })
    }

    fn head() -> Head {
        Head::new(TurnId::new(), Timestamp(5_000_000), "echo/\"x\"".into())
    }

    fn told(wants_usage: bool, events: &[Event]) -> Vec<Value> {
        let (mut chunks, mut out) = (Chunks::new(head(), wants_usage), Vec::new());
        events.iter().for_each(|event| chunks.event(event, &mut out));
        chunks.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        let lines =
            text.split("\n\n").filter(|piece| !piece.is_empty()).map(|piece| piece.strip_prefix("data: ").unwrap());
        lines.map(|line| if line == "[DONE]" { "done".into() } else { serde_json::from_str(line).unwrap() }).collect()
    }

    #[test]
    fn chunks_tell_text_reasoning_the_end_and_the_usage() {
        let events = [
            delta(DeltaKind::Reasoning, "hm"),
            delta(DeltaKind::Text, "a \"b\"\n"),
            delta(DeltaKind::Text, "c"),
            finished(TurnState::Completed, Some("max_tokens"), None),
        ];
        let told = told(true, &events);
        let of = |at: usize, path: &str| told[at].pointer(path).cloned().unwrap_or_default();
        assert_eq!(of(0, "/choices/0/delta"), json!({"role": "assistant", "content": ""}));
        assert_eq!(of(1, "/choices/0/delta/reasoning_content"), "hm");
        assert_eq!(of(2, "/choices/0/delta/content"), "a \"b\"\n");
        assert_eq!(of(3, "/choices/0/delta/content"), "c");
        assert_eq!((of(4, "/choices/0/finish_reason"), of(4, "/usage")), ("length".into(), Value::Null));
        assert_eq!((of(5, "/choices"), of(5, "/usage/total_tokens")), (json!([]), 7.into()));
        assert_eq!((of(5, "/model"), of(5, "/created")), ("echo/\"x\"".into(), 5.into()));
        assert_eq!(told[6], "done");
    }

    #[test]
    fn a_failed_turn_is_an_error_and_not_done() {
        let told = told(false, &[delta(DeltaKind::Text, "a"), finished(TurnState::Failed, None, Some("no luck"))]);
        let last = told.last().unwrap();
        assert_eq!((&last["error"]["message"], &last["error"]["code"]), (&"no luck".into(), &"agent_error".into()));
        assert!(told.iter().all(|piece| piece != "done") && told[0].get("usage").is_none());
        let mut out = Vec::new();
        Chunks::new(head(), false).cut(EndReason::ShuttingDown, &mut out);
        assert!(String::from_utf8(out).unwrap().contains("shutting_down"));
    }

    #[test]
    fn a_whole_answer_has_the_same_text() {
        let mut whole = Whole::default();
        for piece in ["a", "b"] {
            whole.event(&delta(DeltaKind::Text, piece));
        }
        whole.event(&delta(DeltaKind::Reasoning, "hm"));
        whole.event(&finished(TurnState::Completed, None, None));
        let answer = whole.answer(&head()).unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "ab");
        assert_eq!(answer["choices"][0]["message"]["reasoning_content"], "hm");
        assert_eq!(
            (&answer["choices"][0]["finish_reason"], &answer["usage"]["prompt_tokens"]),
            (&"stop".into(), &3.into())
        );
        let mut failed = Whole::default();
        failed.event(&finished(TurnState::Failed, None, Some("no luck")));
        assert_eq!(failed.answer(&head()).unwrap_err().message, "no luck");
    }
}
