//! A model server that needs no model, to try Greenroom and its agents by hand:
//! `cargo run --example mock-model -- 127.0.0.1:18999`.
//!
//! It speaks OpenAI, Anthropic and Gemini and answers by keywords; the tests use the same server.

#[path = "../tests/support/mock_llm/mod.rs"]
mod mock_llm;

use std::{io, net::SocketAddr, process::ExitCode};

#[actix_web::main]
async fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("mock_model=info")).init();
    match serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mock-model: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:18999".into());
    let address: SocketAddr = address.parse().map_err(|error| io::Error::other(format!("{address}: {error}")))?;
    let mock = mock_llm::MockLlm::bind(address)?;
    println!("OpenAI base URL    {}", mock.v1());
    println!("Anthropic, Gemini  {}", mock.url());
    println!(
        "Keywords           USE_TOOL, TOOL_NAME:x, TOOL_CMD:[..], TOOL_PATH:[..], SLOW, THINK, ERR401, ERR429, ERR500"
    );
    actix_web::rt::signal::ctrl_c().await
}
