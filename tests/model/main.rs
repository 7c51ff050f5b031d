//! The pure core of a session under random commands, agent events, lost commits and crashes. After every step the
//! log, the rows and the state must agree, and the promises about turns must hold.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a failed test panics")]

mod fold;
mod machine;

use greenroom::protocol::TurnState;
use proptest::prelude::*;

use machine::{Machine, Op};

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..5u8, any::<bool>()).prop_map(|(policy, other_agent)| Op::Send { policy, other_agent }),
        1 => any::<u8>().prop_map(Op::Cancel),
        1 => Just(Op::Abort),
        1 => Just(Op::ClearQueue),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Op::Move(a, b)),
        1 => any::<u8>().prop_map(Op::Edit),
        1 => Just(Op::Reset),
        1 => Just(Op::Archive),
        1 => any::<bool>().prop_map(Op::Full),
        3 => Just(Op::Admit),
        4 => Just(Op::Open),
        1 => Just(Op::Rename),
        5 => any::<bool>().prop_map(Op::Delta),
        2 => (0..3u8).prop_map(Op::ToolStarted),
        2 => (0..4u8).prop_map(Op::ToolFinished),
        2 => any::<bool>().prop_map(Op::Ask),
        2 => (any::<u8>(), 0..3u8).prop_map(|(n, option)| Op::Answer(n, option)),
        1 => any::<u8>().prop_map(Op::Withdraw),
        1 => Just(Op::Expire),
        3 => any::<u8>().prop_map(Op::TakeSteer),
        5 => (0..3u8).prop_map(Op::End),
        1 => Just(Op::Leave),
        1 => Just(Op::Gone),
        1 => Just(Op::Stalled),
        2 => Just(Op::Crash),
        1 => Just(Op::LoseCommit),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn log_rows_and_state_agree_after_every_step(ops in prop::collection::vec(op(), 1..60)) {
        let mut machine = Machine::new(0);
        for op in &ops {
            machine.step(op);
            machine.check();
        }
        machine.drain();
        machine.check();
    }

    #[test]
    fn interrupted_turns_are_run_again_at_most_as_often_as_configured(
        ops in prop::collection::vec(op(), 1..40),
        retries in 1..3u32,
    ) {
        let mut machine = Machine::new(retries);
        for op in &ops {
            machine.step(op);
            machine.check();
        }
    }
}

#[test]
fn an_agent_may_give_its_conversation_another_id_in_the_middle_of_a_turn() {
    let mut machine = Machine::new(0);
    machine.step(&Op::Send { policy: 0, other_agent: true });
    machine.step(&Op::Open);
    assert_eq!(machine.native_id(), Some("n1"));
    machine.step(&Op::Rename);
    assert_eq!(machine.native_id(), Some("n2"));
    machine.check();
    machine.drain();
    machine.check();
}

#[test]
fn progress_is_the_share_of_what_was_not_cached() {
    for (processed, total, cached, percent) in [(60, 110, 10, 50), (10, 10, 10, 0), (0, 0, 0, 0), (300, 200, 0, 100)] {
        assert_eq!(Machine::percent_of(processed, total, cached), percent, "{processed} of {total}, {cached} cached");
    }
}

#[test]
fn an_agent_without_steering_is_stopped_at_a_tool_boundary_and_goes_on_in_the_same_turn() {
    let mut machine = Machine::new(0);
    let steer = || Op::Send { policy: 1, other_agent: true };
    let mut play = |ops: &[Op]| {
        ops.iter().for_each(|op| {
            machine.step(op);
            machine.check();
        });
        (machine.gone_on(), machine.taken())
    };
    play(&[Op::Send { policy: 0, other_agent: true }, Op::Open, Op::ToolStarted(0), Op::ToolStarted(1), steer()]);
    assert_eq!(play(&[Op::ToolFinished(0), Op::End(1)]), (0, 0), "stopped while another call ran: an end is an end");
    let mut machine = Machine::new(0);
    let mut play = |ops: &[Op]| {
        ops.iter().for_each(|op| {
            machine.step(op);
            machine.check();
        });
        (machine.gone_on(), machine.taken())
    };
    play(&[Op::Send { policy: 0, other_agent: true }, Op::Open, Op::ToolStarted(0), steer(), steer()]);
    assert_eq!(play(&[Op::ToolFinished(0)]), (0, 0), "nothing is taken before the agent has stopped");
    assert_eq!(play(&[Op::End(1)]), (1, 2), "both texts go with one prompt");
    assert_eq!(play(&[Op::Delta(true), Op::End(0)]), (1, 2));
    assert_eq!(machine.finished(), [TurnState::Completed]);
}

#[test]
fn a_cancel_wins_over_a_text_that_waits_for_the_boundary() {
    let mut machine = Machine::new(0);
    let steer = Op::Send { policy: 1, other_agent: true };
    let send = Op::Send { policy: 0, other_agent: true };
    for op in [send, Op::Open, Op::ToolStarted(0), steer, Op::ToolFinished(0), Op::Abort, Op::End(1)] {
        machine.step(&op);
        machine.check();
    }
    assert_eq!((machine.gone_on(), machine.finished()), (0, vec![TurnState::Cancelled]));
}

#[test]
fn a_turn_that_waits_behind_one_whose_agent_dies_gets_a_fresh_agent() {
    let send = || Op::Send { policy: 0, other_agent: true };
    for (leaves, fresh) in [(true, true), (false, false)] {
        let mut machine = Machine::new(0);
        for op in [send(), send(), Op::Open] {
            machine.step(&op);
        }
        if leaves {
            machine.step(&Op::Leave);
        }
        machine.step(&Op::End(2));
        machine.check();
        assert_eq!(machine.waits_for_an_agent(), fresh);
    }
}

#[test]
fn a_conversation_that_another_agent_went_on_with_is_not_loaded_again() {
    let mut machine = Machine::new(0);
    let send = |other_agent| Op::Send { policy: 0, other_agent };
    for op in [send(false), Op::End(0), send(true), Op::Open, Op::End(0)] {
        machine.step(&op);
    }
    assert_eq!(machine.native_id(), Some("n1"));
    for op in [send(false), Op::End(0)] {
        machine.step(&op);
    }
    machine.check();
    assert_eq!(machine.native_id(), None);
}
