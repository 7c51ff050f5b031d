//! The calls of a turn as far as they were told: a reader takes news only of calls that it knows.

use serde_json::Value;

use super::{part::Part, version::Version};

/// One call.
#[derive(Debug)]
pub(super) struct Call {
    id: String,
    name: String,
    title: Option<String>,
    input: Value,
    /// The client knows that there is a call.
    announced: bool,
    /// The client has its input.
    available: bool,
    /// The input as far as it was told piece by piece; none once the pieces do not follow each other.
    written: Option<String>,
    /// Its result was told.
    finished: bool,
    /// Made up for a permission that is about no call we know: its answer is its result.
    stands_for_choice: bool,
}

/// All calls of a turn.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
}

/// What the wire says of every call: the agent runs it, and the client has not declared it.
const EXECUTED: bool = true;
const DYNAMIC: bool = true;

impl Calls {
    fn find(&mut self, id: &str) -> Option<&mut Call> {
        // The newest are asked for most.
        self.calls.iter_mut().rev().find(|call| call.id == id)
    }

    /// True while a call has no result.
    pub(super) fn any_open(&self) -> bool {
        self.calls.iter().any(|call| !call.finished)
    }

    /// Whether the client knows of a call; none for a call that nobody told of.
    pub(super) fn announced(&self, id: &str) -> Option<bool> {
        self.calls.iter().rev().find(|call| call.id == id).map(|call| call.announced)
    }

    /// The client has not seen any of it: what is still open is announced anew with its next news.
    pub(super) fn forget_announced(&mut self) {
        self.calls.retain(|call| !call.finished);
        for call in &mut self.calls {
            (call.announced, call.available, call.written) = (false, false, Some(String::new()));
        }
    }

    /// A call, or more about one.
    pub(super) fn started(
        &mut self,
        version: Version,
        id: &str,
        name: &str,
        title: Option<&str>,
        input: &Value,
        out: &mut Vec<u8>,
    ) {
        let whole = !is_empty(input);
        if self.find(id).is_none() {
            self.calls.push(Call {
                id: id.to_owned(),
                name: name.to_owned(),
                title: None,
                input: Value::Null,
                announced: false,
                available: false,
                written: Some(String::new()),
                finished: false,
                stands_for_choice: false,
            });
        }
        let Some(call) = self.find(id).filter(|call| !call.finished) else { return };
        let news = whole && call.input != *input;
        call.title = title.map(str::to_owned).or(call.title.take());
        if whole {
            call.input = input.clone();
        }
        call.announce(version, out);
        if news {
            call.tell_input(version, out);
        }
    }

    /// The input as far as it is written: a whole prefix.
    pub(super) fn writing(&mut self, version: Version, id: &str, so_far: &str, out: &mut Vec<u8>) {
        let Some(call) = self.find(id).filter(|call| !call.available && !call.finished) else { return };
        call.announce(version, out);
        let Some(written) = &mut call.written else { return };
        match so_far.strip_prefix(written.as_str()) {
            Some("") => {}
            Some(more) => {
                Part::ToolInputDelta { tool_call_id: &call.id, input_text_delta: more }.write(out);
                written.push_str(more);
            }
            // It was written anew: the client gets it whole.
            None => call.written = None,
        }
    }

    /// It is at work.
    pub(super) fn updated(&mut self, version: Version, id: &str, output: &Value, out: &mut Vec<u8>) {
        let Some(call) = self.find(id).filter(|call| !call.finished) else { return };
        call.ready(version, out);
        if version.has_finish_reasons() && !output.is_null() {
            call.tell_output(output, Some(true), out);
        }
    }

    /// It is over.
    pub(super) fn finished(&mut self, version: Version, id: &str, output: &Value, is_error: bool, out: &mut Vec<u8>) {
        let Some(call) = self.find(id).filter(|call| !call.finished) else { return };
        call.ready(version, out);
        call.finished = true;
        if is_error {
            let (tool_call_id, error_text) = (call.id.as_str(), &text_of(output));
            Part::ToolOutputError { tool_call_id, error_text, provider_executed: EXECUTED, dynamic: DYNAMIC }
                .write(out);
        } else {
            call.tell_output(output, None, out);
        }
    }

    /// The call that a permission is about: the newest open one of that tool, else one that is made up for it.
    pub(super) fn for_choice(
        &mut self,
        version: Version,
        tool: Option<&str>,
        choice: &str,
        input: &Value,
        out: &mut Vec<u8>,
    ) -> String {
        let about = self.calls.iter_mut().rev().find(|call| !call.finished && Some(call.name.as_str()) == tool);
        if let Some(call) = about {
            call.ready(version, out);
            return call.id.clone();
        }
        self.started(version, choice, tool.unwrap_or("permission"), None, input, out);
        if let Some(call) = self.find(choice) {
            call.stands_for_choice = true;
            call.ready(version, out);
        }
        choice.to_owned()
    }

    /// A permission is settled: true when that was the result of a call that was made up for it.
    pub(super) fn choice_settled(&mut self, choice: &str, outcome: &Value, allowed: bool, out: &mut Vec<u8>) -> bool {
        let Some(call) = self.find(choice).filter(|call| call.stands_for_choice && !call.finished) else {
            return false;
        };
        call.finished = true;
        if allowed {
            call.tell_output(outcome, None, out);
        } else {
            Part::ToolOutputDenied { tool_call_id: &call.id }.write(out);
        }
        true
    }
}

impl Call {
    fn announce(&mut self, version: Version, out: &mut Vec<u8>) {
        if self.announced {
            return;
        }
        self.announced = true;
        let (tool_call_id, tool_name, title) = (self.id.as_str(), self.name.as_str(), self.title_for(version));
        Part::ToolInputStart { tool_call_id, tool_name, provider_executed: EXECUTED, dynamic: DYNAMIC, title }
            .write(out);
    }

    /// The client knows it with its input.
    fn ready(&mut self, version: Version, out: &mut Vec<u8>) {
        self.announce(version, out);
        if !self.available {
            self.tell_input(version, out);
        }
    }

    fn tell_input(&mut self, version: Version, out: &mut Vec<u8>) {
        self.available = true;
        let none = Value::Object(serde_json::Map::new());
        let input = if self.input.is_null() { &none } else { &self.input };
        let (tool_call_id, tool_name, title) = (self.id.as_str(), self.name.as_str(), self.title_for(version));
        let provider_executed = EXECUTED;
        Part::ToolInputAvailable { tool_call_id, tool_name, input, provider_executed, dynamic: DYNAMIC, title }
            .write(out);
    }

    fn tell_output(&self, output: &Value, preliminary: Option<bool>, out: &mut Vec<u8>) {
        let (tool_call_id, provider_executed) = (self.id.as_str(), EXECUTED);
        Part::ToolOutputAvailable { tool_call_id, output, provider_executed, dynamic: DYNAMIC, preliminary }.write(out);
    }

    fn title_for(&self, version: Version) -> Option<&str> {
        self.title.as_deref().filter(|_| version.has_approvals())
    }
}

/// True for an input that says nothing yet.
fn is_empty(input: &Value) -> bool {
    input.is_null() || input.as_object().is_some_and(serde_json::Map::is_empty)
}

/// What a failed call came back with, for a person.
fn text_of(output: &Value) -> String {
    let text = match output {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    if text.is_empty() { "The tool failed.".to_owned() } else { text }
}
