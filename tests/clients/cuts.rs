//! A network that breaks: a proxy in front of the server that cuts connections in the middle of what the server sends.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The proxy; it ends when it is dropped.
pub struct Network {
    address: SocketAddr,
    left: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Network {
    /// A way to `server` that cuts `cuts` times, each connection after a random number of bytes from the server, and
    /// then never more.
    pub async fn that_cuts(server: SocketAddr, cuts: usize, after: Range<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let left = Arc::new(AtomicUsize::new(cuts));
        // Chance that a failure can be told again with.
        let mut chance = StdRng::seed_from_u64(6);
        let counter = Arc::clone(&left);
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (after, hard) = (chance.random_range(after.clone()), chance.random_bool(0.5));
                let counter = Arc::clone(&counter);
                tokio::spawn(async move { serve(client, server, &counter, after, hard).await });
            }
        });
        Self { address, left, task }
    }

    /// Where to connect to.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often it will still cut.
    pub fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }
}

async fn serve(client: TcpStream, server: SocketAddr, left: &AtomicUsize, after: usize, hard: bool) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async move {
        let _ = copy(&mut from_client, &mut to_server).await;
        from_client
    };
    let down = async move {
        let (mut sent, mut piece) = (0, vec![0; 16 * 1024]);
        loop {
            let Ok(read @ 1..) = from_server.read(&mut piece).await else { return (to_client, false) };
            if sent + read >= after
                && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
            {
                let _ = to_client.write_all(&piece[..after.saturating_sub(sent)]).await;
                return (to_client, true);
            }
            if to_client.write_all(&piece[..read]).await.is_err() {
                return (to_client, false);
            }
            sent += read;
        }
    };
    tokio::pin!(up);
    tokio::select! {
        (to_client, cut) = down => if cut && hard {
            // As a network does that forgets a connection, in place of one that closes it.
            let _ = to_client.as_ref().set_zero_linger();
        },
        from_client = &mut up => drop(from_client),
    }
}
