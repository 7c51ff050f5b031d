//! The transports over real sockets: what holds for every call, whatever the gateway behind it does.

mod client;
mod rules;
mod sockets;
mod uploads;
