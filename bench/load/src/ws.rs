//! WebSocket frames (RFC 6455), as little of them as is needed: none is fragmented here.

use std::io;
use std::net::SocketAddr;

use tungstenite::handshake::derive_accept_key;

use crate::http::{Head, Wire};

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const FEATURE_FLAGS: &str = r#"{"type":"feature_flags","data":{"supports_preview_metadata":true}}"#;

/// One frame of a few bytes.
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// Where a frame's payload lies.
struct Layout {
    opcode: u8,
    mask: Option<[u8; 4]>,
    header: usize,
    length: usize,
}

/// Reads a header; `None` until all of it is there.
fn layout(bytes: &[u8]) -> Option<Layout> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (length, mut header) = match second & 0x7f {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            (usize::try_from(length).ok()?, 10)
        }
        short => (usize::from(short), 2),
    };
    let mut mask = None;
    if second & 0x80 != 0 {
        mask = Some(bytes.get(header..header + 4)?.try_into().ok()?);
        header += 4;
    }
    Some(Layout { opcode: first & 0x0f, mask, header, length })
}

/// Reads the next frame whole; `None` at the end of the stream. Cancel safe.
pub async fn next(wire: &mut Wire) -> io::Result<Option<Frame>> {
    loop {
        let waiting = wire.waiting();
        if let Some(found) = layout(waiting)
            && let Some(payload) = waiting.get(found.header..found.header + found.length)
        {
            let mut payload = payload.to_vec();
            if let Some(mask) = found.mask {
                payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
            }
            wire.take(found.header + found.length);
            return Ok(Some(Frame { opcode: found.opcode, payload }));
        }
        if !wire.more().await? {
            return Ok(None);
        }
    }
}

/// Counts frames of at least some size as they pass, without keeping them.
pub struct Counter {
    size_min: usize,
    /// The rest of a payload that is on its way.
    skip: usize,
    /// The rest of a header that is on its way.
    partial: Vec<u8>,
}

impl Counter {
    pub fn new(size_min: usize) -> Self {
        Self { size_min, skip: 0, partial: Vec::new() }
    }

    /// How many frames begin in these bytes. Pings among them are not answered: Mooring closes a
    /// socket that is silent for 40 s, so a row with events is measured for less.
    pub fn count(&mut self, bytes: &[u8]) -> u64 {
        let joined;
        let mut bytes = bytes;
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.partial);
            bytes = &joined;
        }
        let mut count = 0;
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return count;
            }
            let Some(found) = layout(bytes) else {
                self.partial = bytes.to_vec();
                return count;
            };
            count += u64::from(self.size_min <= found.length);
            self.skip = found.header + found.length;
        }
    }
}

/// A frame as a server writes it.
pub fn from_server(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0);
    frame.extend_from_slice(payload);
    frame
}

/// A frame as a browser writes it. The mask is nought, so that the payload stays as it is.
pub fn from_client(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(opcode, payload.len(), 0x80);
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

fn header(opcode: u8, length: usize, mask: u8) -> Vec<u8> {
    let mut header = vec![0x80 | opcode];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => header.push(mask | short),
        (_, Ok(middle)) => {
            header.push(mask | 126);
            header.extend_from_slice(&middle.to_be_bytes());
        }
        (_, Err(_)) => {
            header.push(mask | 127);
            header.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    header
}

/// The server's half of the opening handshake.
pub fn accepted(head: &Head) -> Vec<u8> {
    let key = head.websocket_key.as_deref().unwrap_or("");
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes()
}

/// Opens a socket as the page does: handshake, first `status`, features.
pub async fn open(target: SocketAddr, client: &str) -> io::Result<Wire> {
    let mut wire = Wire::connect(target).await?;
    let request = format!(
        "GET /ws?clientId={client} HTTP/1.1\r\nHost: comfy.example:8188\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    wire.write(request.as_bytes()).await?;
    let head = wire.head().await?;
    let status = head.as_ref().map_or("", Head::status);
    if status != "101" {
        return Err(io::Error::other(format!("a socket was answered `{status}`")));
    }
    wire.write(&from_client(TEXT, FEATURE_FLAGS.as_bytes())).await?;
    for expected in ["\"status\"", "\"feature_flags\""] {
        wait_for(&mut wire, expected).await?;
    }
    Ok(wire)
}

/// Reads until an event has `text` in it.
pub async fn wait_for(wire: &mut Wire, text: &str) -> io::Result<()> {
    loop {
        match next(wire).await? {
            Some(frame) if frame.opcode == TEXT && contains(&frame.payload, text) => return Ok(()),
            Some(frame) if frame.opcode == CLOSE => break,
            Some(frame) if frame.opcode == PING => {
                wire.write(&from_client(PONG, &frame.payload)).await?;
            }
            Some(_) => {}
            None => break,
        }
    }
    Err(io::Error::other(format!("a socket ended before {text} came")))
}

pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
