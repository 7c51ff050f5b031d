//! Greenroom: a gateway that hosts many long-lived sessions with AI agents.
//!
//! # The rooms
//!
//! - [`protocol`]: what crosses the wire; pure data. [`ids`], [`timestamp`], [`error`]: its small parts.
//! - [`http`], [`ws`]: the transports. They hold a [`gateway::Gateway`] and nothing else.
//! - [`doors`]: wire protocols that clients have already, each a translation of one turn's events.
//! - [`gateway`]: validates, authorises, finds the session and asks it.
//! - [`supervisor`]: opens, sweeps, recovers and drains session actors; [`directory`]: which of them are live.
//! - [`session`]: one actor a live session: queue, turns, choices, event log, streams.
//! - [`agents`]: what runs behind a session, each kind behind one trait; processes and their end.
//! - [`store`]: everything that must survive, in SQLite or Postgres.
//! - [`config`], [`cli`], [`server`], [`app`]: how it is set up, called, put together, started and stopped.
//!
//! Dependencies point one way: `http, ws → gateway → supervisor → session → {agents, store} → protocol → ids`.
//!
//! # The flow
//!
//! command → decide → append → (committed) → apply → publish. Nobody sees an event that a crash could take back.

pub mod agents;
pub mod app;
pub mod cli;
pub mod config;
pub mod directory;
pub mod doors;
pub mod error;
pub mod gateway;
pub mod http;
pub mod ids;
pub mod protocol;
pub mod server;
pub mod session;
pub mod store;
pub mod supervisor;
pub mod timestamp;
pub mod tls;
pub mod ws;
