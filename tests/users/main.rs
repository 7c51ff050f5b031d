//! Many users on one server: who gets in, who sees what, what each may use up, what is written down; and the attacks that
//! servers of this kind have suffered. Against the real program, with the command line as an operator uses it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../support/gateway/mod.rs"]
mod gateway;

mod attacks;
mod audit;
mod browsers;
mod limits;
mod operators;
mod people;
mod routes;
mod streams;
mod tokens;
mod visibility;
