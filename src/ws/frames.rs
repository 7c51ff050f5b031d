//! WebSocket frames from a client: bytes in, whole messages out, within one limit.
//!
//! The codec beside the actor context keeps a frame of any announced length until it is whole, and reads on while it
//! has frames that nobody took. This reader looks at the length first, and reads no more while a frame is left or its
//! gate is shut, so that what a client can make us hold is one message and one read buffer.

use std::{
    cell::{Cell, RefCell},
    io::Cursor,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest payload of a ping, pong or close frame.
const MAX_CONTROL: u64 = 125;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A whole text message.
    Text(String),
    /// A binary message began.
    Binary,
    /// To be answered with the same payload.
    Ping(Bytes),
    /// A sign of life.
    Pong,
    /// The client closes. With its code, where it gave one.
    Close(Option<u16>),
    /// What no client may send. Nothing is read after it.
    Fault(Fault),
}

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A message over the limit.
    TooBig,
    /// Not WebSocket as in RFC 6455.
    Protocol,
    /// Text that is not UTF-8.
    NotText,
}

/// Holds the reader back while there is enough to do.
#[derive(Debug, Default)]
pub(super) struct Gate {
    shut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Gate {
    pub(super) fn shut(&self) {
        self.shut.set(true);
    }

    pub(super) fn open(&self) {
        self.shut.set(false);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.get()
    }
}

/// The reader.
pub(super) struct Frames<S> {
    stream: S,
    max: usize,
    gate: Rc<Gate>,
    buffer: BytesMut,
    /// The pieces so far of a message that comes in fragments.
    message: Option<BytesMut>,
    ended: bool,
}

impl<S> Frames<S> {
    /// Reads messages of at most `max` bytes.
    pub(super) fn new(stream: S, max: usize, gate: Rc<Gate>) -> Self {
        Self { stream, max, gate, buffer: BytesMut::new(), message: None, ended: false }
    }

    /// The next whole message or control frame of the buffer; none when more bytes are needed.
    fn take(&mut self) -> Result<Option<Incoming>, Fault> {
        loop {
            let Some((opcode, last, payload)) = self.frame()? else { return Ok(None) };
            let begun = self.message.take();
            match opcode {
                OpCode::Control(control) => {
                    self.message = begun;
                    return Ok(Some(match control {
                        Control::Ping => Incoming::Ping(payload.freeze()),
                        Control::Pong => Incoming::Pong,
                        Control::Close => Incoming::Close(close_code(&payload)?),
                        Control::Reserved(_) => return Err(Fault::Protocol),
                    }));
                }
                OpCode::Data(Data::Binary) if begun.is_none() => return Ok(Some(Incoming::Binary)),
                OpCode::Data(Data::Text) if begun.is_none() => self.message = Some(payload),
                OpCode::Data(Data::Continue) => {
                    let mut message = begun.ok_or(Fault::Protocol)?;
                    message.extend_from_slice(&payload);
                    self.message = Some(message);
                }
                OpCode::Data(_) => return Err(Fault::Protocol),
            }
            if last {
                let message = self.message.take().unwrap_or_default();
                let text = String::from_utf8(message.into()).map_err(|error| {
                    log::debug!("a text message is not UTF-8: {error}");
                    Fault::NotText
                })?;
                return Ok(Some(Incoming::Text(text)));
            }
        }
    }

    /// The next frame of the buffer, unmasked, and whether it is the last of its message.
    fn frame(&mut self) -> Result<Option<(OpCode, bool, BytesMut)>, Fault> {
        let mut cursor = Cursor::new(self.buffer.as_ref());
        let Some((header, length)) = FrameHeader::parse(&mut cursor).map_err(|error| {
            log::debug!("a bad frame: {error}");
            Fault::Protocol
        })?
        else {
            return Ok(None);
        };
        let head = usize::try_from(cursor.position()).ok().ok_or(Fault::Protocol)?;
        let Some(mask) = header.mask.filter(|_| !header.rsv1 && !header.rsv2 && !header.rsv3) else {
            return Err(Fault::Protocol);
        };
        if matches!(header.opcode, OpCode::Control(_)) {
            if length > MAX_CONTROL || !header.is_final {
                return Err(Fault::Protocol);
            }
        } else if length.saturating_add(self.message.as_ref().map_or(0, BytesMut::len) as u64) > self.max as u64 {
            return Err(Fault::TooBig);
        }
        let length = usize::try_from(length).ok().ok_or(Fault::TooBig)?;
        if self.buffer.len() - head < length {
            return Ok(None);
        }
        self.buffer.advance(head);
        let mut payload = self.buffer.split_to(length);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        Ok(Some((header.opcode, header.is_final, payload)))
    }
}

/// The code of a close frame; none when it has none. Codes that never stand in a frame are no codes.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Fault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Fault::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Fault::Protocol);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(Fault::NotText);
    }
    Ok(Some(code))
}

impl<S, E> Stream for Frames<S>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    type Item = Incoming;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Incoming>> {
        let this = &mut *self;
        if this.gate.is_shut() {
            this.gate.waker.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        while !this.ended {
            match this.take() {
                Ok(Some(incoming)) => {
                    this.ended = matches!(incoming, Incoming::Close(_) | Incoming::Binary);
                    return Poll::Ready(Some(incoming));
                }
                Err(fault) => {
                    this.ended = true;
                    return Poll::Ready(Some(Incoming::Fault(fault)));
                }
                Ok(None) => {}
            }
            match std::task::ready!(Pin::new(&mut this.stream).poll_next(cx)) {
                Some(Ok(bytes)) => this.buffer.extend_from_slice(&bytes),
                Some(Err(_)) | None => this.ended = true,
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream::iter};

    use super::*;

    /// A masked frame: `first` is FIN, reserved bits and opcode.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n @ 126..0x1_0000 => {
                out.push(0x80 | 126);
                out.extend((n as u16).to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend((n as u64).to_be_bytes());
            }
        }
        let mask = [1, 2, 3, 4];
        out.extend(mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    /// All messages, with the bytes coming in pieces of `size`.
    fn read(bytes: &[u8], size: usize, max: usize) -> Vec<Incoming> {
        let pieces: Vec<Result<Bytes, ()>> =
            bytes.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Frames::new(iter(pieces), max, Rc::default()).collect().now_or_never().unwrap()
    }

    fn text(text: &str) -> Incoming {
        Incoming::Text(text.into())
    }

    #[test]
    fn messages_are_the_same_however_the_bytes_come() {
        let long = "x".repeat(70_000);
        let bytes = [
            frame(0x81, b"one"),
            frame(0x01, "fra\u{e4}".as_bytes().split_at(4).0),
            frame(0x89, b"ping"),
            frame(0x00, "fra\u{e4}".as_bytes().split_at(4).1),
            frame(0x80, b"!"),
            frame(0x81, long.as_bytes()),
            frame(0x81, b""),
            frame(0x8a, b""),
            frame(0x88, &[0x03, 0xe8, b'b']),
            frame(0x81, b"after the close"),
        ]
        .concat();
        let expected = [
            text("one"),
            Incoming::Ping("ping".into()),
            text("fra\u{e4}!"),
            text(&long),
            text(""),
            Incoming::Pong,
            Incoming::Close(Some(1000)),
        ];
        for size in [1, 3, 1000, bytes.len()] {
            assert_eq!(read(&bytes, size, 100_000), expected, "pieces of {size}");
        }
    }

    #[test]
    fn too_big_is_known_from_the_length_alone() {
        let mut announced = frame(0x81, b"");
        announced[1] = 0x80 | 127;
        announced.splice(2..2, (1u64 << 40).to_be_bytes());
        assert_eq!(read(&announced, 99, 1000), [Incoming::Fault(Fault::TooBig)]);
        let fragments = [frame(0x01, &[b'a'; 600]), frame(0x80, &[b'a'; 600])].concat();
        assert_eq!(read(&fragments, 99, 1000), [Incoming::Fault(Fault::TooBig)]);
        assert_eq!(read(&fragments, 99, 1200).len(), 1);
    }

    #[test]
    fn what_no_client_may_send() {
        let mut unmasked = vec![0x81, 1, b'a'];
        unmasked.extend(frame(0x81, b"b"));
        for (bytes, fault) in [
            (unmasked, Fault::Protocol),
            (frame(0xc1, b"rsv"), Fault::Protocol),
            (frame(0x83, b"opcode"), Fault::Protocol),
            (frame(0x80, b"nothing to continue"), Fault::Protocol),
            ([frame(0x01, b"a"), frame(0x81, b"b")].concat(), Fault::Protocol),
            (frame(0x09, b"a ping in pieces"), Fault::Protocol),
            (frame(0x89, &[0; 126]), Fault::Protocol),
            (frame(0x81, &[0xff]), Fault::NotText),
        ] {
            assert_eq!(read(&bytes, 5, 1000), [Incoming::Fault(fault)], "{bytes:?}");
        }
        assert_eq!(read(&frame(0x82, b"binary"), 5, 1000), [Incoming::Binary]);
    }

    #[test]
    fn only_codes_that_may_be_sent_close() {
        let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes(), reason].concat());
        assert_eq!(read(&frame(0x88, b""), 9, 1000), [Incoming::Close(None)]);
        for code in [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999] {
            assert_eq!(read(&close(code, "gr\u{fc}n".as_bytes()), 9, 1000), [Incoming::Close(Some(code))]);
        }
        for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535] {
            assert_eq!(read(&close(code, b""), 9, 1000), [Incoming::Fault(Fault::Protocol)], "{code}");
        }
        assert_eq!(read(&frame(0x88, &[3]), 9, 1000), [Incoming::Fault(Fault::Protocol)], "half a code");
        assert_eq!(read(&close(1000, &[0xff]), 9, 1000), [Incoming::Fault(Fault::NotText)]);
        assert_eq!(read(&close(1000, &[b'x'; 124]), 9, 1000), [Incoming::Fault(Fault::Protocol)], "too long");
    }

    #[test]
    fn a_shut_gate_holds_and_its_opening_wakes() {
        let gate = Rc::new(Gate::default());
        let bytes: Vec<Result<Bytes, ()>> = vec![Ok(frame(0x81, b"a").into())];
        let mut frames = Frames::new(iter(bytes), 10, gate.clone());
        gate.shut();
        let (waker, count) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        assert_eq!(frames.poll_next_unpin(&mut cx), Poll::Pending);
        gate.open();
        assert_eq!(count.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(frames.poll_next_unpin(&mut cx), Poll::Ready(Some(text("a"))));
    }

    fn counting_waker() -> (Waker, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
        struct Count(std::sync::Arc<std::sync::atomic::AtomicUsize>);
        impl std::task::Wake for Count {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = std::sync::Arc::default();
        (std::sync::Arc::new(Count(std::sync::Arc::clone(&count))).into(), count)
    }
}
