//! What Greenroom is compared with: the disk, a bare actix-web server, a bare fan-out over TCP.
//!
//! The servers run as processes of their own, like Greenroom, and are driven by the same client.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
    time::Instant,
};

use actix_web::{App, HttpResponse, HttpServer, web};
use bytes::{BufMut as _, Bytes, BytesMut};
use clap::ValueEnum;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::Failure;

/// Frames that a subscriber takes in one write.
const AT_ONCE: usize = 256;

/// A baseline server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Answers every POST with its body.
    Echo,
    /// Sends frames to whoever subscribed.
    Fanout,
    /// Is an agent on stdin and stdout.
    Agent,
}

impl Kind {
    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Fanout => "fanout",
            Self::Agent => "agent",
        }
    }
}

/// Runs a baseline server until it is told to stop.
pub fn serve(kind: Kind) -> Result<(), Failure> {
    match kind {
        Kind::Echo => actix_web::rt::System::new().block_on(echo())?,
        Kind::Fanout => tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(fanout())?,
        Kind::Agent => crate::agent::serve()?,
    }
    Ok(())
}

async fn echo() -> io::Result<()> {
    let answer = |body: Bytes| async move { HttpResponse::Accepted().content_type("application/json").body(body) };
    let health = || async { HttpResponse::Ok().finish() };
    let app = move || App::new().route("/health", web::get().to(health)).default_service(web::post().to(answer));
    let server = HttpServer::new(app).bind("127.0.0.1:0")?;
    for address in server.addrs() {
        println!("http://{address}");
    }
    server.shutdown_timeout(1).run().await
}

/// Protocol: a connection sends `SUB` or `GO COUNT BYTES` as a line. `GO` sends so many frames of so many bytes, and
/// one that says `turn.finished`, to each connection that said `SUB`.
async fn fanout() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}", listener.local_addr()?);
    let mut subscribers: Vec<mpsc::UnboundedSender<Bytes>> = Vec::new();
    let (lines, mut incoming) = mpsc::unbounded_channel();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                tokio::spawn(read_lines(stream, lines.clone()));
            }
            Some((line, stream)) = incoming.recv() => match (line, stream) {
                (Line::Subscribe, Some(stream)) => {
                    let (sender, receiver) = mpsc::unbounded_channel();
                    subscribers.push(sender);
                    tokio::spawn(write_frames(stream, receiver));
                }
                (Line::Go { count, bytes }, _) => go(&mut subscribers, count, bytes),
                (Line::Subscribe, None) => {}
            },
        }
    }
}

enum Line {
    Subscribe,
    Go { count: usize, bytes: usize },
}

/// Reads the lines of a connection; the first `SUB` hands it over.
async fn read_lines(stream: TcpStream, lines: mpsc::UnboundedSender<(Line, Option<TcpStream>)>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        let mut words = line.split_whitespace();
        let sent = match words.next() {
            Some("SUB") => {
                let _ = lines.send((Line::Subscribe, Some(reader.into_inner())));
                return;
            }
            _ => {
                let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                lines.send((Line::Go { count: number(), bytes: number() }, None))
            }
        };
        if sent.is_err() {
            return;
        }
        line.clear();
    }
}

fn go(subscribers: &mut Vec<mpsc::UnboundedSender<Bytes>>, count: usize, bytes: usize) {
    for index in 0..=count {
        let kind = if index == count { "turn.finished" } else { "message.delta" };
        let start = format!(r#"{{"seq":{index},"type":"{kind}","x":""#);
        let pad = "x".repeat(bytes.saturating_sub(start.len() + 2));
        let frame = text_frame(&format!("{start}{pad}\"}}"));
        subscribers.retain(|subscriber| subscriber.send(frame.clone()).is_ok());
    }
}

/// A WebSocket text frame of a server.
fn text_frame(payload: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(payload.len() + 4);
    out.put_u8(0x81);
    match u16::try_from(payload.len()) {
        Ok(short) if short < 126 => out.put_u8(short.to_be_bytes()[1]),
        Ok(middle) => {
            out.put_u8(126);
            out.put_u16(middle);
        }
        Err(_) => {
            out.put_u8(127);
            out.put_u64(payload.len() as u64);
        }
    }
    out.put(payload.as_bytes());
    out.freeze()
}

async fn write_frames(mut stream: TcpStream, mut frames: mpsc::UnboundedReceiver<Bytes>) {
    let mut waiting = Vec::with_capacity(AT_ONCE);
    let mut out = BytesMut::new();
    while frames.recv_many(&mut waiting, AT_ONCE).await > 0 {
        waiting.drain(..).for_each(|frame| out.put(frame));
        if stream.write_all(&out).await.is_err() {
            return;
        }
        out.clear();
    }
}

/// A file that is appended to and synced, as a database does at each commit.
pub struct Disk(File);

impl Disk {
    /// A new file in `folder`.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Ok(Self(File::create(folder.join("fdatasync"))?))
    }

    /// Appends 4 KiB and waits until they are on the disk: the milliseconds that it took.
    pub fn sync(&mut self) -> io::Result<f64> {
        let start = Instant::now();
        self.0.write_all(&[b'x'; 4096])?;
        self.0.sync_data()?;
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }
}
