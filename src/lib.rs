//! Greenroom: a gateway that hosts many long-lived sessions with AI agents.
//!
//! # The rooms
//!
//! - [`protocol`]: what crosses the wire; pure data. [`ids`], [`timestamp`], [`error`], [`secret`]: its small parts.
//! - [`http`], [`ws`]: the transports. They hold a [`gateway::Gateway`] and nothing else. [`doors`]: other protocols' words for a turn.
//! - [`gateway`]: validates, authorises, finds the session and asks it.
//! - [`access`]: who calls and what they may: credentials, limits, open streams, the audit.
//! - [`supervisor`]: opens, sweeps, recovers and drains session actors; [`directory`]: which of them are live.
//! - [`session`]: one actor a live session: queue, turns, choices, event log, streams.
//! - [`agents`]: what runs behind a session, each kind behind one trait; processes and their end.
//! - [`store`]: everything that must survive, in SQLite or Postgres.
//! - [`watchdog`]: panics are counted and told; tasks that must not end are started again.
//! - [`config`], [`cli`], [`server`], [`app`]: how it is set up, called, put together, started and stopped.
//!
//! Dependencies point one way: `http, ws → gateway → {access, supervisor} → session → {agents, store} → protocol → ids`.
//!
//! # The flow
//!
//! command → decide → append → (committed) → apply → publish. Nobody sees an event that a crash could take back.

pub mod access;
pub mod agents;
pub mod app;
pub mod cli;
pub mod config;
pub mod directory;
pub mod doors;
pub mod error;
pub mod feed;
pub mod gateway;
pub mod http;
pub mod ids;
pub mod logs;
pub mod metrics;
pub mod protocol;
pub mod secret;
pub mod server;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod timestamp;
pub mod tls;
pub mod watchdog;
pub mod webhooks;
pub mod ws;
