//! Everything at once, with faults: `kill -9`, SIGTERM, agents that die, hang and are killed from outside, a store that
//! fails for a moment. The judge reads only what clients were told and the final log.
//!
//! A few rounds run with the other tests; by hand as many as wanted:
//! `GREENROOM_CHAOS_ROUNDS=1000 cargo test --release --test chaos -- --nocapture`, with
//! `GREENROOM_TEST_STORE=postgres` on Postgres. The seed is printed; `GREENROOM_CHAOS_SEED` makes the same choices again.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod belief;
mod faults;
mod followers;
#[path = "../support/gateway/mod.rs"]
mod gateway;
mod judge;
mod meddler;
mod senders;
mod world;

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use faults::{Fault, Saboteur};
use gateway::TestGateway;
use world::World;

/// Sessions that are written to at the same time.
const SESSIONS: usize = 6;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// Everything short, so that much happens in a round: queues fill, subscribers lag, sessions leave memory, agents and
/// questions run out of time.
fn server(mark: &str) -> TestGateway {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests");
    let shell = format!(r#"["sh", "{here}/chaos/agent.sh"]"#);
    let acp = format!(r#"["node", "{here}/agents/fake-acp.mjs"]"#);
    let env = format!(r#"{{ {} = "{mark}" }}"#, faults::MARK);
    TestGateway::with(&[
        ("GREENROOM_AGENT__CANCEL_TIMEOUT", "200ms"),
        ("GREENROOM_AGENT__KILL_GRACE", "100ms"),
        ("GREENROOM_AGENT__STALL_TIMEOUT", "3s"),
        ("GREENROOM_AGENTS__ECHO__KIND", "echo"),
        ("GREENROOM_AGENTS__SHELL__KIND", "command"),
        ("GREENROOM_AGENTS__SHELL__COMMAND", &shell),
        ("GREENROOM_AGENTS__SHELL__ENV", &env),
        ("GREENROOM_AGENTS__FAKE__KIND", "acp"),
        ("GREENROOM_AGENTS__FAKE__COMMAND", &acp),
        ("GREENROOM_AGENTS__FAKE__ENV", &env),
        ("GREENROOM_SESSION__DEFAULT_AGENT", "echo"),
        ("GREENROOM_SESSION__MAX_QUEUE", "12"),
        ("GREENROOM_SESSION__IDLE_TIMEOUT", "20ms"),
        ("GREENROOM_SESSION__SWEEP_INTERVAL", "30ms"),
        ("GREENROOM_CHOICE__TIMEOUT", "2s"),
        ("GREENROOM_POOL__MAX_PROCESSES", "4"),
        ("GREENROOM_STREAM__MAX_LAG_BYTES", "16KiB"),
        ("GREENROOM_SHUTDOWN__GRACE", "200ms"),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_or_run_twice_and_no_event_changes_whatever_fails() {
    let rounds = setting("GREENROOM_CHAOS_ROUNDS").unwrap_or(8);
    let seed = setting("GREENROOM_CHAOS_SEED").unwrap_or_else(rand::random);
    println!("chaos: {rounds} rounds, seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mark = uuid::Uuid::now_v7().simple().to_string();
    let mut server = server(&mark);
    let world = Arc::new(World::new(server.address(), SESSIONS));
    let mut clients = senders::start(&world, &mut rng);
    clients.extend(meddler::start(&world, &mut rng));
    clients.extend(followers::start(&world, &mut rng));
    let mut saboteur = Saboteur::new(mark);
    for round in 1..=rounds {
        tokio::time::sleep(Duration::from_millis(rng.random_range(30..600))).await;
        let fault = Fault::of(&mut rng, round);
        saboteur.strike(fault, &mut server, &mut rng).await;
        world.moved_to(server.address());
        if let Some(dead) = clients.iter().position(tokio::task::JoinHandle::is_finished) {
            println!("chaos: seed {seed}; the log ends with\n{}", tail(&server.log(), 40));
            clients.swap_remove(dead).await.unwrap();
        }
        if round % 20 == 0 {
            println!("chaos: {round} rounds; {}; {saboteur}", world.tally());
        }
    }
    world.finish();
    for client in clients {
        if let Err(error) = gateway::in_time("the clients to finish", client).await {
            println!("chaos: seed {seed}; the log ends with\n{}", tail(&server.log(), 40));
            std::panic::resume_unwind(error.into_panic());
        }
    }
    println!("chaos: {}; {saboteur}", world.tally());
    judge::judge(&server, &world).await;
    // Stopped in order and started again, it still says the same; and nothing that it started is left.
    let before = judge::logs(&server, &world).await;
    assert!(server.stop().success());
    saboteur.nothing_left().await;
    server.restart();
    assert_eq!(judge::logs(&server, &world).await, before, "the log is another one after a restart");
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
