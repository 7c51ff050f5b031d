//! The server process: listener, workers, and the order in which they stop.
//!
//! Stopping, in this order:
//! 1. `stop` fires (a signal). The gateway drains: new turns get 503 `shutting_down`, running ones their grace, then
//!    `interrupted`; every stream ends with `stream.end`. The listener stays open meanwhile, so that callers get that
//!    answer and not a refused connection.
//! 2. Sockets without a stream close with 1001.
//! 3. The HTTP server stops: no new connections, running answers get `HTTP_GRACE`.
//! 4. [`Application::run_until_stopped`] returns; the caller closes the store, which by then has no writer left.

use std::{future::Future, io, net::SocketAddr, net::TcpListener, sync::Arc, time::Duration};

use actix_web::{
    App, HttpServer,
    dev::{Extensions, Server},
    middleware::from_fn,
    web,
};
use socket2::SockRef;
use tokio_util::sync::CancellationToken;

use crate::{config::Config, gateway::Gateway, http, metrics::Held};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long a connection between two requests is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client that was answered before it had sent all may go on sending, to be thrown away.
const LINGER: Duration = Duration::from_secs(5);
/// How long running answers may take once the streams have ended, in seconds.
const HTTP_GRACE: u64 = 3;
/// Bytes of an answer that are gathered before they go to the kernel.
const WRITE_BUFFER: usize = 64 * 1024;
/// What the kernel may hold for one client: without a bound megabytes vanish there before a slow client shows.
const SEND_BUFFER: usize = 256 * 1024;

/// A server that listens.
pub struct Application {
    server: Server,
    address: SocketAddr,
    stopping: CancellationToken,
}

impl Application {
    /// Builds the server on a bound listener. Must be called inside an actix system.
    ///
    /// # Errors
    /// When the listener cannot be used.
    pub fn build(config: Arc<Config>, listener: TcpListener, gateway: Gateway) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stopping = gateway.access().stopping.clone();
        let api = web::Data::new(http::Api::new(gateway, Arc::clone(&config), address));
        let max_lag = config.stream.max_lag.0;
        let workers = config.server.workers;
        let server = HttpServer::new(move || {
            App::new()
                .app_data(api.clone())
                .configure(http::configure)
                .default_service(web::to(http::no_route))
                .wrap(from_fn(http::guard))
                .wrap(from_fn(http::boundary))
        })
        .workers(workers)
        .backlog(BACKLOG)
        .max_connections(config.limits.max_connections.div_ceil(workers))
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(config.limits.head_timeout.0)
        .client_disconnect_timeout(LINGER)
        // A client that closes its side is gone: its stream must not look alive until the next write fails.
        .h1_allow_half_closed(false)
        .h1_write_buffer_size(WRITE_BUFFER)
        .shutdown_timeout(HTTP_GRACE)
        .disable_signals()
        .on_connect(move |connection, of_connection: &mut Extensions| {
            of_connection.insert(Held::of(|metrics| metrics.connections.clone()));
            if let Some(stream) = connection.downcast_ref::<actix_web::rt::net::TcpStream>() {
                // Later than the session's own judgement, so that a client that wakes up meanwhile is told why.
                tune(stream, max_lag * 2 + LINGER);
            }
        })
        .listen(listener)?
        .run();
        Ok(Self { server, address, stopping })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then stops in order; `drain` is the gateway's part of it.
    ///
    /// # Errors
    /// When the server fails, or `drain` says that something had failed; that is stopped in order all the same.
    pub async fn run_until_stopped<D: Future<Output = io::Result<()>>>(
        self,
        stop: impl Future<Output = ()>,
        drain: impl FnOnce() -> D,
    ) -> io::Result<()> {
        let handle = self.server.handle();
        let mut server = actix_web::rt::spawn(self.server);
        tokio::select! {
            failed = &mut server => return failed.map_err(io::Error::other)?,
            () = stop => {}
        }
        let drained = drain().await;
        self.stopping.cancel();
        handle.stop(true).await;
        server.await.map_err(io::Error::other)?.and(drained)
    }
}

/// Socket options of a connection. Each failure leaves a connection that works, only less well.
fn tune(stream: &actix_web::rt::net::TcpStream, patience: Duration) {
    let socket = SockRef::from(stream);
    let set = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_send_buffer_size(SEND_BUFFER))
        // A stalled client freezes the task that would notice; the kernel ends the connection instead.
        .and_then(|()| socket.set_tcp_user_timeout(Some(patience)));
    if let Err(error) = set {
        log::debug!("socket options: {error}");
    }
}
