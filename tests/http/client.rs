//! A server on a free port, and a client that sees the bytes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use greenroom::{app::Application, config::Config, gateway::Gateway};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
};

/// A server in a thread of its own; it stops when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<std::io::Result<()>>>,
}

impl Server {
    pub async fn start(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.workers = 1;
        change(&mut config);
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
                let app = Application::build(Arc::new(config), listener, Gateway)?;
                tell.send(app.address()).unwrap();
                let stop = async {
                    stopped.await.ok();
                };
                app.run_until_stopped(stop, || async {}).await
            })
        });
        Self { address: told.await.unwrap(), stop: Some(stop), thread: Some(thread) }
    }

    /// Begins to stop it.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// A request with the usual headers, and a body where there is one.
    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.send(format!("{head}\r\n{body}").as_bytes()).await
    }

    /// Sends bytes and reads until the server closes.
    pub async fn send(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer").unwrap();
        Answer::parse(&answer)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let stopped = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            stopped.unwrap().unwrap();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The error object, after checking that the envelope is whole.
    pub fn error(&self) -> Value {
        let value: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        let error = value["error"].clone();
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        assert_eq!(error["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
        assert!(error["type"].is_string() && error["message"].is_string(), "{self:?}");
        error
    }

    /// Status and code of an error.
    pub fn refused(&self) -> (u16, String) {
        (self.status, self.error()["code"].as_str().unwrap().to_owned())
    }
}

/// What `refused` gives.
pub fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
