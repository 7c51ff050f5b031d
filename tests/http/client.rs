//! The program as a server of its own on a free port, and a client that sees the bytes.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A server process in a group of its own, with nothing of this environment; killed when this is dropped.
pub struct Server {
    pub address: SocketAddr,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Server {
    /// Starts one with these settings as `SECTION__KEY` and value.
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_greenroom"));
        command.arg("serve").args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(folder.path().join("data"));
        command.env_clear().env("HOME", folder.path()).env("GREENROOM_LOG", "error").current_dir(folder.path());
        command.env("GREENROOM_SERVER__WORKERS", "1");
        command.envs(settings.iter().map(|(key, value)| (format!("GREENROOM_{key}"), value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let address = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("http://").and_then(|(_, address)| address.trim().parse().ok()));
        Self { address: address.expect("an address in the output"), process, _folder: folder }
    }

    /// Asks it to stop.
    pub fn stop(&self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end; true when it ended well.
    pub async fn ended(&mut self) -> bool {
        let ended = async {
            loop {
                if let Some(status) = self.process.try_wait().unwrap() {
                    return status.success();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the end of the server")
    }

    /// Opens a stream.
    pub async fn open(&self, path: &str) -> Open {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        stream.write_all(head.as_bytes()).await.unwrap();
        Open(stream)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap())
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

    /// Sends bytes and reads one answer, whatever becomes of the connection.
    pub async fn first(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut seen = Vec::new();
        let read = async {
            loop {
                if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
                    let mut answer = Answer::parse(&seen[..end + 4]);
                    let length = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
                    if let Some(body) = seen.get(end + 4..end + 4 + length) {
                        answer.body = String::from_utf8(body.to_vec()).unwrap();
                        return answer;
                    }
                }
                assert!(stream.read_buf(&mut seen).await.unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
            }
        };
        tokio::time::timeout(Duration::from_secs(20), read).await.expect("an answer")
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
        killpg(self.pid(), Signal::SIGKILL).ok();
        self.process.wait().ok();
    }
}

/// A stream that is open.
pub struct Open(TcpStream);

impl Open {
    /// Reads until this text has come.
    pub async fn until(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let more = tokio::time::timeout(Duration::from_secs(10), self.0.read_buf(&mut seen));
            assert!(more.await.expect("more of the stream").unwrap() > 0, "{}", String::from_utf8_lossy(&seen));
        }
    }

    /// Reads until the server closes.
    pub async fn rest(mut self) -> String {
        let mut rest = String::new();
        let read = self.0.read_to_string(&mut rest);
        tokio::time::timeout(Duration::from_secs(10), read).await.expect("the end of the stream").unwrap();
        rest
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
