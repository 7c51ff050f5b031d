//! `greenroom serve`: logging, the listening socket, the block at the start; then the server itself takes over.

use std::{
    net::{SocketAddr, TcpListener},
    process::ExitCode,
};

use socket2::{Domain, Socket, Type};

use super::{
    FAILED, USAGE,
    banner::{Access, BannerFacts, banner},
    complain, inside, logging, terminal,
};
use crate::{config::Config, server::StartError};

/// Connections that the kernel holds while the server is busy taking others.
const BACKLOG: i32 = 4096;

/// Runs the server until it is told to stop.
pub fn run(config: Config) -> ExitCode {
    if let Err(error) = logging::init(&config.log) {
        return complain(USAGE, &error);
    }
    crate::tls::install_crypto_provider();
    let bind = config.server.bind;
    let (listener, address) = match listen(bind) {
        Ok(both) => both,
        Err(error) => return complain(FAILED, &cannot_listen(bind, &error)),
    };
    let shown = config.clone();
    let ready = move |open| {
        let access = if open { Access::Open } else { Access::Token };
        // Whoever started the server and reads no output does not stop it.
        drop(terminal::print(&banner(&BannerFacts::new(&shown, address, access))));
    };
    match inside::serve(config, listener, ready) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ (StartError::Open(_) | StartError::Configuration(_))) => complain(USAGE, &error.to_string()),
        Err(error) => complain(FAILED, &error.to_string()),
    }
}

fn listen(bind: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(bind), Type::STREAM, None)?;
    // Without it a restart would wait for the old connections' last minute.
    socket.set_reuse_address(true)?;
    socket.bind(&bind.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let address = listener.local_addr()?;
    Ok((listener, address))
}

pub(super) fn cannot_listen(bind: SocketAddr, error: &std::io::Error) -> String {
    let advice = match error.kind() {
        std::io::ErrorKind::AddrInUse => "; another program uses the port: stop it, or choose another with --bind",
        std::io::ErrorKind::PermissionDenied => "; choose a port from 1024 up with --bind",
        _ => "",
    };
    format!("cannot listen on {bind}: {error}{advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_says_what_to_do() {
        let (first, address) = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = listen(address).unwrap_err();
        let line = cannot_listen(address, &error);
        assert!(line.contains("--bind") && !line.contains('\n'), "{line}");
        drop(first);
        // Its port is free again at once.
        listen(address).unwrap();
    }
}
