//! The conformance suite: one list of scenarios, run over every agent through a real server and its public API, offline
//! against the mock model server. Each cell of the table in `docs/agents.md` is one test here.
//!
//! `scripts/agents` installs the agents. One cell alone: `cargo test --test conformance gemini::question`.

// The helpers of a test may fail it as the test itself may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod fake;
#[path = "../support/gateway/mod.rs"]
mod gateway;
#[path = "../support/mock_llm/mod.rs"]
mod mock_llm;
#[path = "../support/real/mod.rs"]
mod real;
mod rig;
mod scenarios;
mod subject;
mod table;
mod talk;

use std::{sync::LazyLock, time::Duration};

use tokio::{runtime::Runtime, sync::Semaphore};

use crate::{
    real::Real,
    scenarios::{SCENARIOS, for_every_scenario},
    subject::Subject,
};

/// Nothing takes so long but what is broken.
const LIMIT: Duration = Duration::from_secs(240);
/// Real agents take a few hundred megabytes each.
const AT_ONCE: usize = 2;

/// Rigs and their connections outlive the tests that share them.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());
static PLACES: Semaphore = Semaphore::const_new(AT_ONCE);

/// Holds one agent to one cell of the table.
fn cell(subject: Subject, name: &str) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name).unwrap();
    let Some(expected) = table::expected(subject, name) else {
        return eprintln!("pending: there is no adapter for it yet");
    };
    let went = RUNTIME.block_on(async {
        let _place = PLACES.acquire().await.unwrap();
        tokio::time::timeout(LIMIT, (scenario.play)(subject)).await.expect("it takes for ever")
    });
    assert_eq!(went, expected, "the table in tests/conformance/table.rs does not say what is seen");
}

macro_rules! cells {
    ([$subject:expr] $($name:ident $what:literal $path:path;)*) => {
        $(
            #[test]
            fn $name() {
                crate::cell($subject, stringify!($name));
            }
        )*
    };
}

macro_rules! suite {
    ($($agent:ident $subject:expr;)*) => {
        $(
            mod $agent {
                use super::*;

                for_every_scenario!(cells, $subject);
            }
        )*
    };
}

suite! {
    claude Subject::Real(Real::Claude);
    codex Subject::Real(Real::Codex);
    opencode Subject::Real(Real::Opencode);
    pi Subject::Real(Real::Pi);
    gemini Subject::Real(Real::Gemini);
    qwen Subject::Real(Real::Qwen);
    claude_acp Subject::Real(Real::ClaudeAcp);
    codex_acp Subject::Real(Real::CodexAcp);
    opencode_acp Subject::Real(Real::OpencodeAcp);
    openai Subject::Openai;
}
