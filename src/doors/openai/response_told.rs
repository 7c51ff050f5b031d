//! A turn told as a response: event by event, and whole at its end. Pure.

use serde_json::{Value, json};

use super::{
    ending::Ending,
    json_text,
    response_object::{About, Item, Standing, summary_part, text_part},
};
use crate::{
    doors::narration::Narrator,
    error::ApiError,
    protocol::{Event, EventBody, TurnState, Usage, event::DeltaKind, frame::EndReason},
};

/// Tells a turn as the events of a response; after the end it is the response.
pub struct Told {
    about: About,
    output: Vec<Item>,
    /// True while the last item grows.
    open: bool,
    begun: bool,
    sequence: u64,
    end: Option<Standing>,
}

impl Told {
    /// Nothing told so far.
    #[must_use]
    pub fn new(about: About) -> Self {
        Self { about, output: Vec::new(), open: false, begun: false, sequence: 0, end: None }
    }

    /// The response.
    ///
    /// # Errors
    /// Why there is none.
    pub fn answer(self) -> Result<Value, ApiError> {
        match &self.end {
            Some(Standing::Over(Ending::Failed(error), ..)) => Err(error.clone()),
            Some(standing) => Ok(self.about.object(standing, &self.output)),
            None => Err(Ending::cut(EndReason::SessionFailed)),
        }
    }

    /// The begin of an event, up to its fields.
    fn head(&mut self, kind: &str, out: &mut Vec<u8>) {
        let sequence = self.sequence;
        self.sequence += 1;
        out.extend_from_slice(
            format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"sequence_number\":{sequence}").as_bytes(),
        );
    }

    fn tell(&mut self, kind: &str, fields: &Value, out: &mut Vec<u8>) {
        self.head(kind, out);
        let fields = fields.to_string();
        if let Some(rest) = fields.strip_prefix('{').filter(|rest| *rest != "}") {
            out.push(b',');
            out.extend_from_slice(rest.as_bytes());
        } else {
            out.push(b'}');
        }
        out.extend_from_slice(b"\n\n");
    }

    fn tell_response(&mut self, kind: &str, standing: &Standing, out: &mut Vec<u8>) {
        let response = self.about.object(standing, &self.output);
        self.tell(kind, &json!({"response": response}), out);
    }

    fn last(&self) -> Option<(usize, &Item)> {
        let at = self.output.len().checked_sub(1)?;
        self.output.get(at).map(|item| (at, item))
    }

    fn open_item(&mut self, kind: DeltaKind, out: &mut Vec<u8>) {
        self.output.push(Item { kind, text: String::new() });
        self.open = true;
        let Some((at, item)) = self.last() else { return };
        let (id, shown) = (self.about.item_id(at, kind), self.about.item(at, item, false));
        self.tell("response.output_item.added", &json!({"output_index": at, "item": shown}), out);
        let fields = match kind {
            DeltaKind::Text => json!({"item_id": id, "output_index": at, "content_index": 0, "part": text_part("")}),
            DeltaKind::Reasoning => {
                json!({"item_id": id, "output_index": at, "summary_index": 0, "part": summary_part("")})
            }
        };
        self.tell(names(kind).part_added, &fields, out);
    }

    fn close_item(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let Some((at, item)) = self.last() else { return };
        let (kind, id, whole) = (item.kind, self.about.item_id(at, item.kind), self.about.item(at, item, true));
        let (text, part) = match kind {
            DeltaKind::Text => (
                json!({"item_id": id, "output_index": at, "content_index": 0, "text": item.text, "logprobs": []}),
                json!({"item_id": id, "output_index": at, "content_index": 0, "part": text_part(&item.text)}),
            ),
            DeltaKind::Reasoning => (
                json!({"item_id": id, "output_index": at, "summary_index": 0, "text": item.text}),
                json!({"item_id": id, "output_index": at, "summary_index": 0, "part": summary_part(&item.text)}),
            ),
        };
        self.tell(names(kind).text_done, &text, out);
        self.tell(names(kind).part_done, &part, out);
        self.tell("response.output_item.done", &json!({"output_index": at, "item": whole}), out);
    }

    fn delta(&mut self, kind: DeltaKind, delta: &str, out: &mut Vec<u8>) {
        if !self.open || self.last().is_none_or(|(_, item)| item.kind != kind) {
            self.close_item(out);
            self.open_item(kind, out);
        }
        let Some((at, _)) = self.last() else { return };
        let id = self.about.item_id(at, kind);
        self.head(names(kind).delta, out);
        let index = if kind == DeltaKind::Text { r#","logprobs":[],"content_index""# } else { r#","summary_index""# };
        out.extend_from_slice(format!(r#","item_id":"{id}","output_index":{at}{index}:0,"delta":"#).as_bytes());
        json_text(delta, out);
        out.extend_from_slice(b"}\n\n");
        if let Some(item) = self.output.last_mut() {
            item.text.push_str(delta);
        }
    }
}

/// The events of an item of that kind.
struct Names {
    part_added: &'static str,
    delta: &'static str,
    text_done: &'static str,
    part_done: &'static str,
}

const fn names(kind: DeltaKind) -> Names {
    match kind {
        DeltaKind::Text => Names {
            part_added: "response.content_part.added",
            delta: "response.output_text.delta",
            text_done: "response.output_text.done",
            part_done: "response.content_part.done",
        },
        DeltaKind::Reasoning => Names {
            part_added: "response.reasoning_summary_part.added",
            delta: "response.reasoning_summary_text.delta",
            text_done: "response.reasoning_summary_text.done",
            part_done: "response.reasoning_summary_part.done",
        },
    }
}

impl Narrator for Told {
    fn event(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !self.begun {
            self.begun = true;
            self.tell_response("response.created", &Standing::InProgress, out);
            self.tell_response("response.in_progress", &Standing::InProgress, out);
        }
        match &event.body {
            EventBody::MessageDelta { kind, delta, .. } => self.delta(*kind, delta, out),
            EventBody::TurnFinished { state, reason, error, usage, .. } => {
                let ending = Ending::of(*state, reason.as_deref(), error.as_ref());
                self.end = Some(Standing::Over(ending, *state, *usage));
            }
            _ => {}
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        self.close_item(out);
        let Some(standing) = self.end.clone() else { return self.cut(EndReason::SessionFailed, out) };
        let kind = match standing.status() {
            "completed" => "response.completed",
            "incomplete" => "response.incomplete",
            _ => "response.failed",
        };
        self.tell_response(kind, &standing, out);
    }

    fn cut(&mut self, reason: EndReason, out: &mut Vec<u8>) {
        self.close_item(out);
        let failed = Ending::Failed(Ending::cut(reason));
        let standing = Standing::Over(failed, TurnState::Interrupted, Usage::default());
        self.tell_response("response.failed", &standing, out);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::{
        ids::{MessageId, TurnId},
        protocol::TurnError,
        timestamp::Timestamp,
    };

    fn about() -> About {
        About {
            turn: TurnId::new(),
            created: Timestamp(7_000_000),
            model: "echo".into(),
            instructions: None,
            previous: None,
            session: Some("web:a".into()),
            metadata: Map::new(),
            background: false,
        }
    }

    fn event(body: EventBody) -> Event {
        Event { seq: 1, body, session: "a".parse().unwrap(), turn_id: None, at: Timestamp(0) }
    }

    fn delta(kind: DeltaKind, text: &str) -> Event {
        event(EventBody::MessageDelta { message_id: MessageId::new(), part: 0, kind, delta: text.into() })
    }

    fn finished(state: TurnState, reason: Option<&str>, error: Option<&str>) -> Event {
        let error = error.map(|message| TurnError { code: "agent_error".into(), message: message.into() });
        let usage = Usage { output_tokens: 4, ..Usage::default() };
        event(EventBody::TurnFinished { state, reason: reason.map(str::to_owned), error, usage, summary: None })
    }

    fn told(events: &[Event]) -> (Vec<Value>, Told) {
        let (mut told, mut out) = (Told::new(about()), Vec::new());
        events.iter().for_each(|event| told.event(event, &mut out));
        told.finish(&mut out);
        let text = String::from_utf8(out).unwrap();
        let read = |piece: &str| {
            let (name, data) = piece.split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(name, format!("event: {}", data["type"].as_str().unwrap()));
            data
        };
        (text.split("\n\n").filter(|piece| !piece.is_empty()).map(read).collect(), told)
    }

    #[test]
    fn the_events_come_in_order_and_add_up_to_the_response() {
        let events = [
            delta(DeltaKind::Reasoning, "hm"),
            delta(DeltaKind::Text, "a\n"),
            delta(DeltaKind::Text, "\"b\""),
            finished(TurnState::Completed, None, None),
        ];
        let (events, told) = told(&events);
        let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
        let expected = [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.reasoning_summary_part.added",
            "response.reasoning_summary_text.delta",
            "response.reasoning_summary_text.done",
            "response.reasoning_summary_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ];
        assert_eq!(kinds, expected);
        for (at, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], at);
        }
        let response = &events.last().unwrap()["response"];
        assert_eq!(response["output"][0]["summary"][0]["text"], "hm");
        assert_eq!(response["output"][1]["content"][0]["text"], "a\n\"b\"");
        assert_eq!(response["output"][1]["id"], events[10]["item_id"]);
        assert_eq!((&response["status"], &response["usage"]["total_tokens"]), (&"completed".into(), &4.into()));
        assert_eq!((&response["store"], &response["conversation"]["id"]), (&true.into(), &"web:a".into()));
        assert_eq!(told.answer().unwrap(), *response);
    }

    #[test]
    fn ends_that_are_not_good_have_their_own_event() {
        let last = |state, reason, error| {
            let (mut events, told) = told(&[delta(DeltaKind::Text, "a"), finished(state, reason, error)]);
            (events.pop().unwrap(), told.answer())
        };
        let (event, answer) = last(TurnState::Completed, Some("max_tokens"), None);
        assert_eq!(
            (&event["type"], &event["response"]["incomplete_details"]["reason"]),
            (&"response.incomplete".into(), &"max_output_tokens".into())
        );
        assert!(answer.is_ok());
        let (event, answer) = last(TurnState::Failed, None, Some("no luck"));
        assert_eq!(
            (&event["type"], &event["response"]["error"]["message"]),
            (&"response.failed".into(), &"no luck".into())
        );
        assert_eq!(answer.unwrap_err().message, "no luck");
        let (event, _) = last(TurnState::Cancelled, None, None);
        assert_eq!(event["response"]["status"], "cancelled");
    }
}
