//! Bodies as HTTP libraries of other languages write them.

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::Cases;
use crate::support::{Answer, World, network, quick, send_bytes, soon, until};

const JSON: &str = "application/json";

async fn post(world: &World, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    send_bytes(world.front, Method::POST, "/prompt", headers, body.into()).await
}

/// What came of it: the status, and the code of a refusal.
fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.header("mooring-error").to_owned())
}

fn taken() -> (u16, String) {
    (200, String::new())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A submission of this client, spelled in JSON.
fn of_client(spelled: &str) -> String {
    format!("{{\"client_id\": {spelled}, \"prompt\": {}}}", quick(1))
}

fn packed<W>(mut encoder: W, plain: &str, finish: impl Fn(W) -> Vec<u8>) -> Vec<u8>
where
    W: std::io::Write,
{
    encoder.write_all(plain.as_bytes()).unwrap();
    finish(encoder)
}

fn gzip(plain: &str) -> Vec<u8> {
    packed(GzEncoder::new(Vec::new(), Compression::best()), plain, |it| it.finish().unwrap())
}

fn zlib(plain: &str) -> Vec<u8> {
    packed(ZlibEncoder::new(Vec::new(), Compression::fast()), plain, |it| it.finish().unwrap())
}

fn raw_deflate(plain: &str) -> Vec<u8> {
    packed(DeflateEncoder::new(Vec::new(), Compression::none()), plain, |it| it.finish().unwrap())
}

/// ComfyUI keys its events by whatever JSON stands there. What nobody can open a socket as is
/// refused: a list there ends its event loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ids_as_each_language_writes_them() {
    let world = World::new(1).await;
    world.all_up().await;
    let mut cases = Cases::default();
    for (name, spelled, client) in [
        ("Java: a long", "1764310000123", Some("1764310000123")),
        ("n8n: a number of 21 digits", "123456789012345678901", Some("123456789012345678901")),
        ("Lua: a float", "1764310000123.0", Some("1764310000123.0")),
        ("C: a negative number", "-7", Some("-7")),
        ("JavaScript: an exponent", "1e21", Some("1e21")),
        ("PHP: zero", "0", Some("0")),
        ("escapes of umlauts", "\"k\\u00fcche\"", Some("küche")),
        ("Go: escapes for HTML", "\"a\\u0026b\\u003c\"", Some("a&b<")),
        ("a pair of surrogates", "\"\\ud83e\\udd8a\"", Some("🦊")),
        ("null is nobody", "null", None),
        ("an empty text is nobody", "\"\"", None),
    ] {
        let answer = post(&world, &[("content-type", JSON)], of_client(spelled)).await;
        let prompt = answer.prompt_id();
        until("it has run", || world.sim("a").ledger().finished.contains(&prompt)).await;
        let known = client.map(|client| {
            let id = mooring::routing::ids::ClientId::parse(client).unwrap();
            world.gateway.sessions.clients.get(&id).is_some()
        });
        let right = client.map(|_| true);
        cases.case(name, (told(&answer), known), (taken(), right));
    }
    for (name, spelled) in [
        ("a boolean", "true"),
        ("a list", "[\"a\"]"),
        ("an object", "{\"id\": 1}"),
        ("no number of Python's", "NaN"),
        ("half a surrogate", "\"\\ud83e\""),
        ("a line feed", "\"a\\nb\""),
    ] {
        let answer = post(&world, &[("content-type", JSON)], of_client(spelled)).await;
        let is_told = answer.json()["error"]["message"].is_string();
        cases.case(name, (answer.status, is_told), (400, true));
    }
    let sim = world.sim("a");
    let runs = sim.ledger().enqueued.len();
    cases.case("nothing else has reached a server", runs, 11);
    cases.end(18);
}

/// As aiohttp decodes them, which ComfyUI is built on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn charsets_and_content_types_of_each_language() {
    let world = World::new(1).await;
    world.all_up().await;
    let plain = of_client("\"é画\"");
    let utf16 =
        |order: fn(u16) -> [u8; 2]| -> Vec<u8> { plain.encode_utf16().flat_map(order).collect() };
    let latin: Vec<u8> =
        of_client("\"é\"").chars().map(|it| u8::try_from(u32::from(it)).unwrap()).collect();
    let marked = |mark: &[u8], rest: &[u8]| [mark, rest].concat();
    let own = plain.as_bytes();
    let mut japanese = of_client("\"??\"").into_bytes();
    let at = japanese.iter().position(|it| *it == b'?').unwrap();
    japanese[at..at + 2].copy_from_slice(&[0x89, 0xe6]);
    let mut cases = Cases::default();
    for (name, content_type, body, client) in [
        ("none at all", "", own.to_vec(), "é画"),
        ("curl -d", "application/x-www-form-urlencoded", own.to_vec(), "é画"),
        ("Python requests with data=", "text/plain", own.to_vec(), "é画"),
        ("Java: in upper case", "APPLICATION/JSON; CHARSET=UTF-8", own.to_vec(), "é画"),
        ("C#: in quotes", "application/json; charset=\"utf-8\"", own.to_vec(), "é画"),
        ("PHP: another parameter", "application/json;v=1;charset=utf8", own.to_vec(), "é画"),
        ("C#: a byte order mark", JSON, marked(b"\xef\xbb\xbf", own), "é画"),
        (
            "Python: utf-8-sig",
            "application/json; charset=utf-8-sig",
            marked(b"\xef\xbb\xbf", own),
            "é画",
        ),
        (
            "Java: UTF-16 with its mark",
            "application/json; charset=UTF-16",
            marked(b"\xfe\xff", &utf16(u16::to_be_bytes)),
            "é画",
        ),
        (
            "C#: UTF-16 without one",
            "application/json; charset=utf-16le",
            utf16(u16::to_le_bytes),
            "é画",
        ),
        ("PowerShell: UTF-16 unsaid", JSON, marked(b"\xff\xfe", &utf16(u16::to_le_bytes)), "é画"),
        ("Java servlets: Latin-1", "application/json; charset=ISO-8859-1", latin, "é"),
        ("a Japanese script", "application/json; charset=Shift_JIS", japanese, "画"),
        ("a last line feed", JSON, format!("{plain}\r\n").into_bytes(), "é画"),
    ] {
        let headers = [("content-type", content_type)];
        let headers = if content_type.is_empty() { &headers[..0] } else { &headers[..] };
        let answer = post(&world, headers, body).await;
        let id = mooring::routing::ids::ClientId::parse(client).unwrap();
        let known = world.gateway.sessions.clients.get(&id).is_some();
        cases.case(name, (told(&answer), known), (taken(), true));
    }
    cases.end(14);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_are_not_what_they_say() {
    let world = World::new(1).await;
    let own = of_client("\"ada\"").into_bytes();
    let mut cases = Cases::default();
    for (name, content_type, body, status, code) in [
        (
            "a charset of nobody",
            "application/json; charset=klingon",
            own.clone(),
            415,
            "unknown_charset",
        ),
        ("Latin-1 unsaid", JSON, b"{\"client_id\": \"\xe9\"}".to_vec(), 400, "invalid_json"),
        (
            "half of UTF-16",
            "application/json; charset=utf-16le",
            own[..5].to_vec(),
            400,
            "invalid_json",
        ),
        ("zeros behind it", JSON, [&own[..], b"\0"].concat(), 400, "invalid_json"),
        ("a comma too many", JSON, b"{\"prompt\": {},}".to_vec(), 400, "invalid_json"),
        ("Python's repr", JSON, b"{'prompt': {}}".to_vec(), 400, "invalid_json"),
        ("nothing", JSON, Vec::new(), 400, "invalid_json"),
        ("PHP: an empty array", JSON, b"[]".to_vec(), 400, "invalid_json"),
        ("a key twice", JSON, b"{\"prompt\": {}, \"prompt\": {}}".to_vec(), 400, "duplicate_key"),
    ] {
        let answer = post(&world, &[("content-type", content_type)], body).await;
        cases.case(name, told(&answer), refused(status, code));
    }
    cases.end(9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codings_of_each_language() {
    let world = World::new(1).await;
    world.all_up().await;
    let plain = of_client("\"ada\"");
    let (first, second) = plain.split_at(40);
    let mut cases = Cases::default();
    for (name, coding, body, right) in [
        ("nginx: two members", "gzip", [gzip(first), gzip(second)].concat(), taken()),
        ("Java: x-gzip in upper case", "X-GZIP", gzip(&plain), taken()),
        ("Go: identity beside it", "gzip, identity", gzip(&plain), taken()),
        ("PHP: gzcompress", "deflate", zlib(&plain), taken()),
        ("C#: DeflateStream", "deflate", raw_deflate(&plain), taken()),
        ("Node: identity", "identity", plain.clone().into_bytes(), taken()),
        ("an empty header", "", plain.clone().into_bytes(), taken()),
        ("twice", "gzip, gzip", gzip(&plain), refused(415, "unknown_coding")),
        ("Brotli", "br", gzip(&plain), refused(415, "unknown_coding")),
        ("gzip that is none", "gzip", plain.clone().into_bytes(), refused(400, "body_corrupt")),
        ("zlib that says gzip", "gzip", zlib(&plain), refused(400, "body_corrupt")),
        ("cut in the middle", "deflate", zlib(&plain)[..30].to_vec(), refused(400, "body_corrupt")),
    ] {
        let headers = [("content-type", JSON), ("content-encoding", coding)];
        let answer = post(&world, &headers, body).await;
        cases.case(name, told(&answer), right);
    }
    let ran = world.sim("a").requests();
    let coded = ran
        .iter()
        .filter(|it| it.target == "/prompt")
        .filter(|it| it.headers.contains_key("content-encoding"));
    cases.case("what a server gets is plain", coded.count(), 0);
    cases.end(13);
}

/// Sends bytes as they are, and reads one answer.
async fn raw(world: &World, head: &str, parts: &[&str]) -> String {
    let (host, port) = (world.front.ip().to_string(), world.front.port());
    let mut stream = network().connect(&host, port).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", async {
        stream.write_all(head.as_bytes()).await.unwrap();
        if head.to_lowercase().contains("100-continue") {
            while !read.ends_with(b"\r\n\r\n") {
                assert!(0 < stream.read_buf(&mut read).await.unwrap(), "it waits for a word");
            }
        }
        for part in parts {
            stream.write_all(part.as_bytes()).await.unwrap();
        }
        let _ = stream.read_to_end(&mut read).await;
    })
    .await;
    String::from_utf8_lossy(&read).into_owned()
}

/// The same submission in the frames that HTTP/1.1 allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn framings_of_each_language() {
    let world = World::new(1).await;
    world.all_up().await;
    let body = of_client("\"ada\"");
    let len = body.len();
    let chunked = |chunk: usize, extension: &str| {
        let chunks = body.as_bytes().chunks(chunk);
        let one =
            |it: &[u8]| format!("{:X}{extension}\r\n{}\r\n", it.len(), String::from_utf8_lossy(it));
        chunks.map(one).collect::<String>() + "0\r\n\r\n"
    };
    let (c50, c1, c64) = (chunked(50, ""), chunked(1, ""), chunked(64, ";x=1"));
    let (length, plus) = (format!("Content-Length: {len}"), format!("Content-Length: +{len}"));
    let both = format!("{length}\r\nTransfer-Encoding: chunked");
    let expect = format!("Expect: 100-continue\r\n{length}");
    let close = "Connection: close\r\n";
    let mut cases = Cases::default();
    for (name, lines, more, body, right) in [
        ("curl: it waits for 100", &expect[..], close, &body, ["1.1 100", "1.1 200"]),
        (
            "C#: it waits, with chunks",
            "EXPECT: 100-Continue\r\nTRANSFER-ENCODING: chunked",
            close,
            &c50,
            ["1.1 100", "1.1 200"],
        ),
        (
            "aiohttp: chunks of one byte",
            "Transfer-Encoding: chunked",
            close,
            &c1,
            ["1.1 200", "1.1 200"],
        ),
        ("Go: extensions", "transfer-encoding:chunked", close, &c64, ["1.1 200", "1.1 200"]),
        ("PHP: HTTP/1.0", &length, "", &body, ["1.0 200", "1.0 200"]),
        ("a length that is none", &plus, close, &body, ["1.1 400", "1.1 400"]),
        // No client sends it, and two readers may take two ends of it (RFC 9112 section 6.1).
        ("a length and chunks", &both, "", &c50, ["1.1 400", "1.1 400"]),
    ] {
        let version = &right[0][..3];
        let head = format!("POST /prompt HTTP/{version}\r\nhost: gw\r\n{more}{lines}\r\n\r\n");
        let answer = raw(&world, &head, &[body]).await;
        let [first, last] = right.map(|it| format!("HTTP/{it}"));
        let is_right = answer.starts_with(&first) && answer.contains(&last);
        cases.case(name, (is_right, answer.clone()), (true, answer));
    }
    let runs = world.sim("a").ledger().enqueued.len();
    cases.case("each that was taken runs once", runs, 5);
    cases.end(8);
}
