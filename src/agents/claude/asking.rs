//! Permissions and questions on their way to the session, and answers on their way back.

use serde_json::Value;

use super::{
    driver::Driver,
    permission::{self, allow, deny},
    wire::{self, text},
};
use crate::agents::{AgentEvent, Answer, program::Stop};

impl Driver {
    /// The agent asks.
    pub(super) async fn request(&mut self, id: String, request: &Value) -> Result<(), Stop> {
        let subtype = text(request, "subtype");
        if subtype != "can_use_tool" {
            log::debug!(agent = self.program.name.as_str(), subtype; "agent asks for what this client does not have");
            self.lines.answer(&wire::refusal(&id, &format!("this client does not know {subtype}")));
            return Ok(());
        }
        let input = request.get("input").cloned().unwrap_or_default();
        let by_itself = !permission::needs_a_person(request);
        let signs = self.signs;
        let asked = self.turn.as_mut().is_some_and(|turn| turn.course.is_running(signs) && !turn.cancelling);
        let reply = match () {
            () if self.settings.grants_now() && by_itself => allow(&input),
            () if asked => return self.ask_person(id, request).await,
            // A task in the background asks between two turns, or a turn is being stopped.
            () => deny("Nobody can be asked now."),
        };
        self.lines.answer(&wire::reply(&id, &reply));
        Ok(())
    }

    async fn ask_person(&mut self, id: String, request: &Value) -> Result<(), Stop> {
        let ask = self.pending.ask(&self.instance, id, request);
        self.emit(AgentEvent::ChoiceAsked(ask)).await
    }

    /// Passes an answer on. One that comes too late is dropped: the question is settled.
    pub(super) fn answer(&mut self, ask_id: &str, answer: &Answer) {
        match self.pending.answer(ask_id, answer) {
            Some(settled) => self.lines.answer(&wire::reply(&settled.request, &settled.reply)),
            None => log::debug!(ask_id; "answer to a question that nobody asks any more"),
        }
    }

    /// Takes back all questions: with a turn that is being stopped, or is over.
    pub(super) async fn withdraw(&mut self) -> Result<(), Stop> {
        for (ask_id, _) in self.pending.take_all() {
            self.emit(AgentEvent::ChoiceWithdrawn { ask_id }).await?;
        }
        Ok(())
    }
}
