//! What the bounds of a budget come to, without a session.

use super::*;
use crate::config::UserBudget;

const TODAY: i64 = 20_000;

fn config(on_limit: OnLimit) -> BudgetConfig {
    BudgetConfig { session_tokens: 100, user_day_cost_usd: 2.0, on_limit, ..BudgetConfig::default() }
}

fn used(tokens: u64, day_cost: f64) -> Used {
    let session = Amount { tokens, cost_usd: 0.0 };
    Used { session, day: Amount { tokens, cost_usd: day_cost }, today: TODAY }
}

fn of(config: &BudgetConfig, record: &BudgetRecord, used: &Used) -> Vec<Bound> {
    bounds(config, "ann", record, used)
}

/// What is judged when so much is used.
fn verdict(config: &BudgetConfig, record: &BudgetRecord, used: &Used, asked: bool) -> Verdict {
    judge(config, record, &of(config, record, used), asked)
}

#[test]
fn a_session_can_have_bounds_of_its_own() {
    let config = config(OnLimit::Stop);
    let limits = |record: &BudgetRecord| -> Vec<f64> {
        of(&config, record, &used(0, 0.0)).iter().map(|bound| bound.limit).collect()
    };
    assert_eq!(limits(&BudgetRecord::default()), [100.0, 2.0]);
    let own = BudgetRecord { tokens: Some(300), cost_usd: Some(0.5), ..BudgetRecord::default() };
    assert_eq!(limits(&own), [300.0, 0.5, 2.0]);
    let without = BudgetRecord { tokens: Some(0), ..BudgetRecord::default() };
    assert_eq!(limits(&without), [2.0], "0 is no bound");
    let raise = |day| DayRaise { day, tokens: Some(7), cost_usd: Some(3.0) };
    let today = BudgetRecord { day: Some(raise(TODAY)), ..BudgetRecord::default() };
    assert_eq!(limits(&today), [100.0, 3.0], "what has no bound is not given one by a raise");
    let yesterday = BudgetRecord { day: Some(raise(TODAY - 1)), ..BudgetRecord::default() };
    assert_eq!(limits(&yesterday), [100.0, 2.0]);
    let users = [("ann".to_owned(), UserBudget { session_tokens: Some(0), ..UserBudget::default() })];
    let special = BudgetConfig { users: users.into(), ..config.clone() };
    assert_eq!(of(&special, &BudgetRecord::default(), &used(0, 0.0)).len(), 1);
    assert!(of(&BudgetConfig::default(), &BudgetRecord::default(), &used(9, 9.0)).is_empty());
}

#[test]
fn what_happens_at_a_bound_is_configured() {
    let record = BudgetRecord::default();
    for (on_limit, word) in [(OnLimit::Warn, "go on"), (OnLimit::Stop, "stop"), (OnLimit::Ask, "ask")] {
        let config = config(on_limit);
        assert_eq!(verdict(&config, &record, &used(99, 1.9), false), Verdict::GoOn);
        for at in [used(100, 0.0), used(0, 2.0)] {
            let told = match verdict(&config, &record, &at, false) {
                Verdict::GoOn => "go on",
                Verdict::Ask(_) => "ask",
                Verdict::Stop(_) => "stop",
            };
            assert_eq!(told, word);
        }
    }
}

#[test]
fn each_bound_is_told_of_once() {
    let config = config(OnLimit::Warn);
    let mut record = BudgetRecord::default();
    let mut tell = |tokens, cost| -> Vec<(BudgetScope, BudgetMarkKind)> {
        let bounds = of(&config, &record, &used(tokens, cost));
        let news = news(&config, &record, &bounds);
        for (_, mark) in &news {
            remember(&mut record, &bounds, *mark);
        }
        // As it comes back from the database.
        record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        news.into_iter().map(|(bound, mark)| (bound.scope, mark.kind)).collect()
    };
    assert!(tell(79, 1.5).is_empty());
    assert_eq!(tell(80, 1.5), [(BudgetScope::Session, BudgetMarkKind::Near)]);
    assert!(tell(99, 1.5).is_empty());
    let both = [(BudgetScope::Session, BudgetMarkKind::Reached), (BudgetScope::UserDay, BudgetMarkKind::Near)];
    assert_eq!(tell(100, 1.6), both);
    assert!(tell(150, 1.7).is_empty());
}

#[test]
fn another_bound_and_another_day_are_told_of_anew() {
    let config = config(OnLimit::Warn);
    let mut record = BudgetRecord::default();
    let bounds_now = of(&config, &record, &used(100, 2.0));
    for (_, mark) in news(&config, &record, &bounds_now) {
        remember(&mut record, &bounds_now, mark);
    }
    let tomorrow = Used { today: TODAY + 1, ..used(100, 2.0) };
    let later = of(&config, &record, &tomorrow);
    let told = news(&config, &record, &later);
    assert_eq!(told.iter().map(|(bound, _)| bound.scope).collect::<Vec<_>>(), [BudgetScope::UserDay]);
    record.tokens = Some(120);
    let raised = of(&config, &record, &used(120, 2.0));
    let told = news(&config, &record, &raised);
    assert_eq!(told.iter().map(|(bound, _)| bound.scope).collect::<Vec<_>>(), [BudgetScope::Session]);
    remember(&mut record, &raised, told[0].1);
    assert_eq!(record.marks.len(), 2, "what is of no bound any more is forgotten: {:?}", record.marks);
}

#[test]
fn to_go_on_raises_what_is_reached_and_nothing_else() {
    let config = config(OnLimit::Ask);
    let mut record = BudgetRecord::default();
    let at = of(&config, &record, &used(130, 1.0));
    raise(&config, &mut record, &at);
    assert_eq!((record.tokens, record.day), (Some(180), None), "by half of 100, from what is used");
    assert_eq!(verdict(&config, &record, &used(179, 1.0), false), Verdict::GoOn);
    let at = of(&config, &record, &used(150, 2.0));
    raise(&config, &mut record, &at);
    let day = DayRaise { day: TODAY, tokens: None, cost_usd: Some(3.0) };
    assert_eq!((record.tokens, record.day), (Some(180), Some(day)));
    assert_eq!(verdict(&config, &record, &used(150, 2.9), false), Verdict::GoOn);
}

#[test]
fn a_no_holds_until_the_bound_is_another() {
    let config = config(OnLimit::Ask);
    let mut record = BudgetRecord::default();
    let at = used(100, 0.0);
    let reached = of(&config, &record, &at);
    decline(&mut record, &reached);
    assert!(matches!(verdict(&config, &record, &at, false), Verdict::Stop(_)));
    record.tokens = Some(101);
    assert_eq!(verdict(&config, &record, &at, false), Verdict::GoOn);
    assert!(matches!(verdict(&config, &record, &used(101, 0.0), false), Verdict::Ask(_)));
}

#[test]
fn an_open_question_lets_nobody_use_more_than_its_yes_would() {
    let config = config(OnLimit::Ask);
    let record = BudgetRecord::default();
    assert!(matches!(verdict(&config, &record, &used(149, 0.0), true), Verdict::Ask(_)));
    assert!(matches!(verdict(&config, &record, &used(150, 0.0), true), Verdict::Stop(_)));
    assert!(matches!(verdict(&config, &record, &used(150, 0.0), false), Verdict::Ask(_)), "nobody was asked yet");
}

#[test]
fn the_view_says_what_is_left_and_how_it_stands() {
    let config = config(OnLimit::Stop);
    let record = BudgetRecord::default();
    let at = |tokens, cost| view(&config, &record, &of(&config, &record, &used(tokens, cost))).unwrap();
    let shown = at(30, 0.5);
    assert_eq!(shown.tokens, Some(TokenBudget { used: 30, limit: 100 }));
    assert_eq!(shown.cost_usd, None);
    let day = DayBudget { tokens: None, cost_usd: Some(CostBudget { used: 0.5, limit: 2.0 }) };
    assert_eq!((shown.day, shown.state), (Some(day), BudgetState::Ok));
    assert_eq!((at(80, 0.0).state, at(30, 2.5).state), (BudgetState::Warned, BudgetState::Stopped));
    let warn = BudgetConfig { on_limit: OnLimit::Warn, ..config.clone() };
    let over = view(&warn, &record, &of(&warn, &record, &used(200, 0.0))).unwrap();
    assert_eq!(over.state, BudgetState::Warned);
    assert_eq!(view(&config, &record, &[]), None);
}

#[test]
fn a_refusal_says_when_or_how_to_go_on() {
    let config = config(OnLimit::Stop);
    let record = BudgetRecord::default();
    let bounds = of(&config, &record, &used(100, 2.0));
    let now = Timestamp(TODAY * DAY_MICROS + DAY_MICROS - 90_000_000);
    assert_eq!((day_of(now), day_of(Timestamp(now.0 + 90_000_000))), (TODAY, TODAY + 1));
    let session = bounds[0].refusal(now);
    assert_eq!((session.code, session.retry_after), (Code::BudgetExceeded, Some(RETRY_AFTER)));
    assert!(session.message.contains(r#"{"budget": {"tokens": N}}"#), "{session}");
    let day = bounds[1].refusal(now);
    assert_eq!(day.retry_after, Some(90));
    assert!(day.message.contains("budget.user_day_cost_usd"), "{day}");
}

#[test]
fn what_is_taken_back_is_not_counted() {
    let (a, b) = (Amount { tokens: 5, cost_usd: 0.5 }, Amount { tokens: 7, cost_usd: 0.25 });
    assert_eq!(a.since(b), Amount { tokens: 0, cost_usd: 0.25 });
    assert!(a.since(a).is_zero());
}
