//! The queue of a session: turns that wait, in the order in which they will run. Pure.

use std::{collections::VecDeque, sync::Arc};

use crate::{ids::TurnId, store::TurnRecord};

/// Turns that wait, next first. Ranks rise from front to back, so the order survives in the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Queue {
    turns: VecDeque<Arc<TurnRecord>>,
}

impl Queue {
    /// A queue of turns that were stored, in the order of their ranks.
    #[must_use]
    pub fn restore(mut turns: Vec<TurnRecord>) -> Self {
        turns.sort_by_key(|turn| turn.rank);
        Self { turns: turns.into_iter().map(Arc::new).collect() }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.turns.len()
    }

    /// True when none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// The turns, next first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TurnRecord>> {
        self.turns.iter()
    }

    /// The place of a turn, 0 is next.
    #[must_use]
    pub fn position(&self, id: TurnId) -> Option<u32> {
        let found = self.turns.iter().position(|turn| turn.turn.id == id)?;
        u32::try_from(found).ok()
    }

    /// A turn that waits.
    #[must_use]
    pub fn get(&self, id: TurnId) -> Option<&Arc<TurnRecord>> {
        self.turns.iter().find(|turn| turn.turn.id == id)
    }

    /// Adds a turn as the last one; sets its rank.
    pub fn push_back(&mut self, mut turn: TurnRecord) -> Arc<TurnRecord> {
        turn.rank = self.turns.back().map_or(0, |last| last.rank.saturating_add(1));
        let turn = Arc::new(turn);
        self.turns.push_back(Arc::clone(&turn));
        turn
    }

    /// Adds a turn as the next one; sets its rank, which is negative: it goes before what was accepted earlier.
    pub fn push_front(&mut self, mut turn: TurnRecord) -> Arc<TurnRecord> {
        turn.rank = self.turns.front().map_or(0, |first| first.rank.min(0)).saturating_sub(1);
        let turn = Arc::new(turn);
        self.turns.push_front(Arc::clone(&turn));
        turn
    }

    /// Adds a turn that was accepted earlier than some that wait: before the first of those, but after those that were
    /// put first on purpose. Gives it, and the turns whose rank has changed.
    pub fn push_in_order(&mut self, turn: TurnRecord) -> (Arc<TurnRecord>, Vec<Arc<TurnRecord>>) {
        let id = turn.turn.id;
        let in_line = self.turns.iter().skip_while(|waiting| waiting.rank < 0);
        let later = in_line.map(|waiting| waiting.turn.id).find(|waiting| *waiting > id);
        let pushed = self.push_back(turn);
        let changed = later.and_then(|later| self.move_before(id, Some(later))).unwrap_or_default();
        (self.get(id).map_or(pushed, Arc::clone), changed)
    }

    /// Takes the next turn.
    pub fn pop(&mut self) -> Option<Arc<TurnRecord>> {
        self.turns.pop_front()
    }

    /// Takes a turn out.
    pub fn remove(&mut self, id: TurnId) -> Option<Arc<TurnRecord>> {
        let at = self.turns.iter().position(|turn| turn.turn.id == id)?;
        self.turns.remove(at)
    }

    /// Takes all turns out.
    pub fn drain(&mut self) -> Vec<Arc<TurnRecord>> {
        self.turns.drain(..).collect()
    }

    /// Replaces the text of a turn.
    pub fn edit(&mut self, id: TurnId, text: String) -> Option<Arc<TurnRecord>> {
        let turn = self.turns.iter_mut().find(|turn| turn.turn.id == id)?;
        Arc::make_mut(turn).turn.text = text;
        Some(Arc::clone(turn))
    }

    /// Puts a turn before another, or last; all ranks are given anew. None when one of them does not wait.
    /// Gives the turns whose rank has changed.
    pub fn move_before(&mut self, id: TurnId, before: Option<TurnId>) -> Option<Vec<Arc<TurnRecord>>> {
        if before.is_some_and(|other| self.get(other).is_none()) {
            return None;
        }
        let from = self.turns.iter().position(|turn| turn.turn.id == id)?;
        if before != Some(id) {
            let turn = self.turns.remove(from)?;
            let end = self.turns.len();
            let to = before.and_then(|other| self.turns.iter().position(|turn| turn.turn.id == other));
            self.turns.insert(to.unwrap_or(end), turn);
        }
        let mut changed = Vec::new();
        for (rank, turn) in (0i64..).zip(self.turns.iter_mut()) {
            if turn.rank != rank {
                Arc::make_mut(turn).rank = rank;
                changed.push(Arc::clone(turn));
            }
        }
        Some(changed)
    }
}
