//! `kill -9` at random moments under load. The judge reads only what clients were told and the final log.
//!
//! A few rounds run with the other tests; by hand as many as wanted:
//! `GREENROOM_CHAOS_ROUNDS=200 cargo test --release --test chaos -- --nocapture`. The seed is printed;
//! `GREENROOM_CHAOS_SEED` plays the same choices again.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod clients;
#[path = "../support/gateway/mod.rs"]
mod gateway;
mod judge;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use clients::{Told, World};
use gateway::TestGateway;

/// Sessions that are written to at the same time.
const SESSIONS: usize = 6;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_or_run_twice_and_no_event_changes_over_kill_9() {
    let rounds = setting("GREENROOM_CHAOS_ROUNDS").unwrap_or(6);
    let seed = setting("GREENROOM_CHAOS_SEED").unwrap_or_else(rand::random);
    println!("chaos: {rounds} rounds, seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut server = TestGateway::with(&[("GREENROOM_AGENT__CANCEL_TIMEOUT", "200ms")]);
    let world = Arc::new(World::new(server.address(), SESSIONS));
    let clients = clients::start(&world, &mut rng);
    for round in 0..rounds {
        let life = Duration::from_millis(rng.random_range(30..600));
        tokio::time::sleep(life).await;
        server.kill9();
        world.down.store(true, Ordering::SeqCst);
        server.restart();
        world.moved_to(server.address());
        if round % 20 == 19 {
            println!(
                "chaos: {} rounds, {} turns acknowledged",
                round + 1,
                world.told().values().map(Vec::len).sum::<usize>()
            );
        }
    }
    world.finish.store(true, Ordering::SeqCst);
    for client in clients {
        gateway::in_time("the clients to finish", client).await.unwrap();
    }
    let told: Vec<Vec<Told>> = world.told().values().cloned().collect();
    assert!(told.iter().any(|turns| !turns.is_empty()), "nothing was sent: the test would show nothing");
    judge::judge(&server, &world).await;
}
