//! How far a turn is: which of our lines the agent has taken, and whether what it tells belongs to them. Pure.
//!
//! Each of our lines has a uuid. The agent says when such a line waits, when a turn of its own has taken it, and in
//! the end of that turn, its `result`, which lines that was for. It has turns of its own, too, as when a task in the
//! background ends; they carry none of our uuids.
//!
//! A text that is offered to a running turn is taken at a safe point, after a tool's result. Where there is no such
//! point any more, the agent runs it right after, as a turn of its own; here that is still the same turn.

use serde_json::Value;

use super::wire::Lifecycle;
use crate::{agents::Outcome, protocol::TurnError};

/// The course of one turn.
#[derive(Debug)]
pub(super) struct Course {
    /// The line whose result is awaited.
    current: String,
    /// True once the agent has said that the line waits: then it also says when it begins.
    queued: bool,
    started: bool,
    /// The lines that were taken into this turn after the first.
    taken: Vec<String>,
    /// The texts that were offered and not taken yet.
    offered: Vec<(u64, String)>,
    /// How the turn ends unless an offered text goes on with it.
    ended: Option<Outcome>,
}

/// What a sign of the agent means.
#[derive(Debug, Default, PartialEq)]
pub(super) struct News {
    /// This text was taken.
    pub(super) steered: Option<u64>,
    /// What went wrong before it, without ending the turn.
    pub(super) fault: Option<TurnError>,
    /// The turn is over.
    pub(super) over: Option<Over>,
}

/// How a turn is over.
#[derive(Debug, PartialEq)]
pub(super) enum Over {
    /// As its result said.
    Result(Outcome),
    /// It had no result; this was the last that was heard of its line.
    Silent(Lifecycle),
}

impl Course {
    /// A turn begins with this line.
    pub(super) fn new(uuid: String) -> Self {
        Self { current: uuid, queued: false, started: false, taken: Vec::new(), offered: Vec::new(), ended: None }
    }

    /// A text is offered to it with this line.
    pub(super) fn offer(&mut self, id: u64, uuid: String) {
        self.offered.push((id, uuid));
    }

    /// Whether what the agent tells now belongs to this turn. `signs` is true for an agent that tells how far our lines
    /// are; older ones do not, and their turn begins with the first that they say.
    pub(super) fn is_running(&mut self, signs: bool) -> bool {
        self.started |= !signs && !self.queued;
        self.started
    }

    /// The agent says how far a line is.
    pub(super) fn lifecycle(&mut self, uuid: &str, state: Lifecycle) -> News {
        if let Some(at) = self.offered.iter().position(|(_, offered)| offered == uuid) {
            return match state {
                Lifecycle::Queued => News::default(),
                Lifecycle::Started => {
                    let (id, uuid) = self.offered.swap_remove(at);
                    self.take(id, uuid)
                }
                Lifecycle::Completed | Lifecycle::Dropped => {
                    self.offered.swap_remove(at);
                    News { over: self.over(), ..News::default() }
                }
            };
        }
        if uuid != self.current {
            return News::default();
        }
        match state {
            Lifecycle::Queued => self.queued = true,
            Lifecycle::Started => self.started = true,
            // The result comes before this; one that did not come was lost.
            Lifecycle::Completed | Lifecycle::Dropped if self.ended.is_none() => {
                return News { over: Some(Over::Silent(state)), ..News::default() };
            }
            Lifecycle::Completed | Lifecycle::Dropped => {}
        }
        News::default()
    }

    fn take(&mut self, id: u64, uuid: String) -> News {
        let fault = match self.ended.take() {
            // It was taken after the end: a result of its own follows.
            Some(ended) => {
                self.current.clone_from(&uuid);
                if let Outcome::Failed(error) = ended { Some(error) } else { None }
            }
            None => None,
        };
        self.taken.push(uuid);
        News { steered: Some(id), fault, over: None }
    }

    /// True when this result is about a line of this turn, as far as the agent says.
    pub(super) fn owns(&self, result: &Value, signs: bool) -> bool {
        let listed = result.get("user_message_uuids").and_then(Value::as_array);
        let single = result.get("user_message_uuid");
        let ours = |uuid: &Value| {
            uuid.as_str().is_some_and(|uuid| uuid == self.current || self.taken.iter().any(|taken| taken == uuid))
        };
        listed.into_iter().flatten().chain(single).any(ours) || (!signs && !self.queued)
    }

    /// A result of this turn came; how it ends, unless offered texts go on with it. A turn that is being stopped does
    /// not wait for them.
    pub(super) fn result(&mut self, outcome: Outcome, cancelling: bool) -> Option<Over> {
        if cancelling {
            self.offered.clear();
        }
        self.ended = Some(outcome);
        self.over()
    }

    fn over(&mut self) -> Option<Over> {
        if self.offered.is_empty() { self.ended.take().map(Over::Result) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        Lifecycle::{Completed, Dropped, Queued, Started},
        *,
    };

    const DONE: Outcome = Outcome::Completed { reason: None };

    fn begun() -> Course {
        let mut course = Course::new("p".into());
        course.lifecycle("p", Queued);
        course.lifecycle("p", Started);
        course
    }

    #[test]
    fn what_is_told_before_the_line_was_taken_belongs_to_something_else() {
        let mut course = Course::new("p".into());
        course.lifecycle("p", Queued);
        assert!(!course.is_running(true) && !course.is_running(false));
        course.lifecycle("other", Started);
        assert!(!course.is_running(true));
        course.lifecycle("p", Started);
        assert!(course.is_running(true));
        // Without signs, it begins with the first word.
        assert!(Course::new("p".into()).is_running(false) && !Course::new("p".into()).is_running(true));
    }

    #[test]
    fn a_result_is_told_by_its_lines() {
        let course = begun();
        assert!(course.owns(&json!({"user_message_uuids": ["x", "p"]}), true));
        assert!(course.owns(&json!({"user_message_uuid": "p"}), true));
        assert!(!course.owns(&json!({"user_message_uuids": []}), true) && !course.owns(&json!({}), true));
        assert!(Course::new("p".into()).owns(&json!({}), false));
    }

    #[test]
    fn a_text_taken_on_the_way_is_part_of_the_turn() {
        let mut course = begun();
        course.offer(7, "s".into());
        assert_eq!(course.lifecycle("s", Queued), News::default());
        assert_eq!(course.lifecycle("s", Started), News { steered: Some(7), ..News::default() });
        assert_eq!(course.lifecycle("s", Completed), News::default());
        assert_eq!(course.result(DONE, false), Some(Over::Result(DONE)));
    }

    #[test]
    fn a_text_taken_after_the_end_goes_on_with_the_turn() {
        let mut course = begun();
        course.offer(7, "s".into());
        let failed = Outcome::failed("agent_error", "no");
        assert_eq!(course.result(failed, false), None);
        assert_eq!(course.lifecycle("p", Completed), News::default());
        let news = course.lifecycle("s", Started);
        assert_eq!((news.steered, news.fault.map(|error| error.message)), (Some(7), Some("no".into())));
        assert!(course.owns(&json!({"user_message_uuids": ["s"]}), true));
        assert_eq!(course.result(DONE, false), Some(Over::Result(DONE)));
    }

    #[test]
    fn a_text_that_is_dropped_holds_no_turn_up() {
        let mut course = begun();
        course.offer(7, "s".into());
        assert_eq!(course.result(DONE, false), None);
        let over = Some(Over::Result(DONE));
        assert_eq!(course.lifecycle("s", Dropped), News { over, ..News::default() });
        let mut course = begun();
        course.offer(7, "s".into());
        assert_eq!(course.result(Outcome::Cancelled, true), Some(Over::Result(Outcome::Cancelled)));
    }

    #[test]
    fn a_turn_without_a_result_ends_with_its_line() {
        for state in [Completed, Dropped] {
            let over = Some(Over::Silent(state));
            assert_eq!(begun().lifecycle("p", state), News { over, ..News::default() });
        }
    }
}
