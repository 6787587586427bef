//! HTTP/1.1 over one connection, as little of it as the load and the backends need: heads, and
//! bodies with a `Content-Length`.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::tls::Tls;

/// Enough for any head and any small body here.
const BUFFER: usize = 4 << 10;
/// What a large body is read with.
const BULK: usize = 256 << 10;
const DRAIN: usize = 64 << 10;

/// One connection, with what was read beyond the last message.
pub struct Wire {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    buffer: Vec<u8>,
    start: usize,
}

/// What is needed of a request's or an answer's head.
pub struct Head {
    /// The request line or the status line.
    pub first: String,
    pub length: usize,
    pub websocket_key: Option<String>,
}

impl Head {
    /// Method, path and query of a request.
    pub fn request(&self) -> (&str, &str, &str) {
        let mut words = self.first.split(' ');
        let method = words.next().unwrap_or("");
        let target = words.next().unwrap_or("");
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (method, path.strip_prefix("/api").unwrap_or(path), query)
    }

    /// Status of an answer.
    pub fn status(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or("")
    }
}

/// The value of one parameter of a query.
pub fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn bad(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was cut")
}

impl Wire {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::over(Either::Left(stream)))
    }

    fn over(stream: Either<TcpStream, Box<TlsStream<TcpStream>>>) -> Self {
        Self { stream, buffer: Vec::with_capacity(BUFFER), start: 0 }
    }

    pub async fn connect(target: SocketAddr) -> io::Result<Self> {
        Self::new(TcpStream::connect(target).await?)
    }

    /// With TLS if `tls` is there.
    pub async fn connect_with(target: SocketAddr, tls: Option<&Tls>) -> io::Result<Self> {
        let Some(tls) = tls else { return Self::connect(target).await };
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(Either::Right(Box::new(tls.connect(stream).await?))))
    }

    /// What has been read and not taken.
    pub fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub fn take(&mut self, count: usize) {
        self.start += count;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// Reads more; false at the end of the stream. Cancel safe.
    pub async fn more(&mut self) -> io::Result<bool> {
        if self.buffer.len() == self.buffer.capacity() {
            if self.start == 0 {
                self.buffer.reserve(BUFFER);
            } else {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
        }
        Ok(self.stream.read_buf(&mut self.buffer).await? != 0)
    }

    /// Reads a head; `None` if the connection ended before it began.
    pub async fn head(&mut self) -> io::Result<Option<Head>> {
        let mut looked = 0;
        loop {
            let waiting = self.waiting();
            let from = looked.min(waiting.len());
            if let Some(at) = waiting[from..].windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = parse(&waiting[..from + at])?;
                self.take(from + at + 4);
                return Ok(Some(head));
            }
            looked = waiting.len().saturating_sub(3);
            if !self.more().await? {
                return if self.waiting().is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
    }

    /// Reads a small body whole.
    pub async fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.waiting().len() < length {
            if !self.more().await? {
                return Err(cut());
            }
        }
        let body = self.waiting()[..length].to_vec();
        self.take(length);
        Ok(body)
    }

    /// Reads a body and forgets it; `came` is told of each part.
    pub async fn skip(&mut self, length: usize, mut came: impl FnMut(usize)) -> io::Result<()> {
        let here = self.waiting().len().min(length);
        self.take(here);
        came(here);
        let mut left = length - here;
        if left == 0 {
            return Ok(());
        }
        let mut bulk = vec![0; BULK.min(left)];
        while left != 0 {
            let most = bulk.len().min(left);
            let count = self.stream.read(&mut bulk[..most]).await?;
            if count == 0 {
                return Err(cut());
            }
            came(count);
            left -= count;
        }
        Ok(())
    }

    /// Reads to the end of the stream; `came` gets what comes.
    pub async fn drain(&mut self, mut came: impl FnMut(&[u8])) -> io::Result<()> {
        came(self.waiting());
        self.take(self.waiting().len());
        let mut buffer = vec![0; DRAIN];
        loop {
            match self.stream.read(&mut buffer).await? {
                0 => return Ok(()),
                count => came(&buffer[..count]),
            }
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        // TLS keeps what the socket did not take.
        self.stream.flush().await
    }

    /// Sends a request and reads its small answer; anything but 200 is an error.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        self.write(request).await?;
        let head = self.head().await?.ok_or_else(cut)?;
        let body = self.body(head.length).await?;
        match head.status() {
            "200" => Ok(body),
            _ => Err(bad(format!("{}: {}", head.first, String::from_utf8_lossy(&body)))),
        }
    }
}

fn parse(head: &[u8]) -> io::Result<Head> {
    let text = std::str::from_utf8(head).map_err(|_| bad("a head that is no text"))?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or("").to_owned();
    let mut parsed = Head { first, length: 0, websocket_key: None };
    for line in lines {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            parsed.length = value.trim().parse().map_err(|_| bad("a bad Content-Length"))?;
        } else if name.eq_ignore_ascii_case("sec-websocket-key") {
            parsed.websocket_key = Some(value.trim().to_owned());
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a chunked body, which nobody here sends"));
        }
    }
    Ok(parsed)
}

/// A request as a browser writes it: about 500 bytes of head.
pub fn request(method: &str, target: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = match body.len() {
        0 => String::new(),
        length => format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n"),
    };
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: comfy.example:8188\r\nConnection: keep-alive\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/131.0.0.0 Safari/537.36\r\nAccept: */*\r\nComfy-User: \r\n\
         Cache-Control: no-cache\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
         Sec-Fetch-Dest: empty\r\nReferer: http://comfy.example:8188/\r\n\
         Accept-Encoding: gzip, deflate\r\nAccept-Language: en-US,en;q=0.9\r\n{length}\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A whole answer.
pub fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = answer_head(kind, body.len());
    answer.extend_from_slice(body);
    answer
}

/// The head of an answer, as aiohttp writes it.
pub fn answer_head(kind: &str, length: usize) -> Vec<u8> {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: Python/3.12 aiohttp/3.11.8\r\n\r\n"
    )
    .into_bytes()
}
