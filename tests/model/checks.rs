//! What must be true of the machine after every step, and at the end.

use super::*;

impl Machine {
    /// How many times an agent was stopped for a text and went on.
    pub fn gone_on(&self) -> usize {
        self.gone_on
    }

    /// True while the turn that is next waits for an agent to be opened.
    pub fn waits_for_an_agent(&self) -> bool {
        self.running_state() == Some(TurnState::Starting)
    }

    /// How many texts were taken into a running turn.
    pub fn taken(&self) -> usize {
        self.client.steered.len()
    }

    /// How the turns have ended, in the order of their ids.
    pub fn finished(&self) -> Vec<TurnState> {
        self.client.finished.values().copied().collect()
    }

    /// Lets everything run to its end.
    pub fn drain(&mut self) {
        self.lose_next = false;
        for _ in 0..10_000 {
            match self.running_state() {
                Some(TurnState::Starting) => {
                    self.step(&Op::Admit);
                    self.step(&Op::Open);
                }
                Some(_) => {}
                None => break,
            }
            if self.started() {
                self.end(0);
            } else {
                self.step(&Op::Gone);
            }
        }
        assert!(self.client.queue.is_empty() && self.client.running.is_none());
        for (id, turn) in &self.turns {
            assert!(self.client.finished.contains_key(id), "a turn was never settled: {turn:?}");
        }
        for text in &self.offered {
            let taken = self.client.steered.iter().filter(|known| *known == text).count();
            let own = self.client.texts.values().filter(|known| *known == text).count();
            // Edited after it had become a turn of its own, it is still there under its id.
            let edited = self.client.texts.values().any(|known| known.starts_with("edited"));
            assert!(taken + own >= 1 || edited, "a steered text was lost");
            assert!(taken <= 1 && own <= 1 + self.retries as usize, "a steered text was used twice");
        }
    }

    /// The percentage that clients are told for the agent's figures.
    pub fn percent_of(processed: u64, total: u64, cached: u64) -> u8 {
        let mut machine = Self::new(0);
        machine.step(&Op::Send { policy: 0, other_agent: false });
        machine.agent(AgentEvent::Progress { processed, total, cached, time_ms: 5 });
        match machine.log.last().map(|event| &event.body) {
            Some(EventBody::AgentProgress { percent, .. }) => *percent,
            other => panic!("no progress was told: {other:?}"),
        }
    }

    /// State, rows and log say the same.
    pub fn check(&self) {
        let Some(state) = &self.state else { return };
        assert_eq!(state.last_seq, self.client.last_seq);
        let queue: Vec<TurnId> = state.queue.iter().map(|turn| turn.turn.id).collect();
        let starting = state.running.as_ref().filter(|r| r.turn.turn.state == TurnState::Starting);
        let believed: Vec<TurnId> =
            self.client.queue.iter().copied().filter(|id| starting.is_none_or(|r| r.turn.turn.id != *id)).collect();
        assert_eq!(queue, believed, "the queue and the log differ");
        assert!(queue.len() <= MAX_QUEUE + 2 + self.offered.len(), "the queue has no bound");
        let running = state.running.as_ref().filter(|_| starting.is_none());
        assert_eq!(running.map(|r| r.turn.turn.id), self.client.running, "the running turn and the log differ");
        let choices: Vec<ChoiceId> = running.iter().flat_map(|r| r.choices.iter().map(|c| c.choice.id)).collect();
        assert_eq!(choices, self.client.choices, "the questions and the log differ");
        let partial = running.and_then(|r| r.message.as_ref().map(|message| message.message(&r.turn).text()));
        assert_eq!(partial, self.client.partial, "the message and the log differ");
        assert_eq!(self.prompts, self.client.started.len(), "not one prompt for each started turn");
        let mut rows: Vec<&TurnRecord> =
            self.turns.values().filter(|turn| turn.turn.state == TurnState::Queued && turn.steers.is_none()).collect();
        rows.sort_by_key(|turn| turn.rank);
        assert_eq!(rows.iter().map(|turn| turn.turn.id).collect::<Vec<_>>(), queue, "the rows and the queue differ");
        for (id, state) in &self.client.finished {
            assert_eq!(self.turns.get(id).map(|turn| turn.turn.state), Some(*state), "a row and the log differ");
        }
        if let Some(record) = &self.session {
            assert_eq!(record.snapshot.busy, state.busy(), "the row does not know whether it is busy");
        }
        let limit = self.retries + 1;
        assert!(self.client.attempts.values().all(|attempt| *attempt <= limit), "a turn was tried too often");
    }
}
