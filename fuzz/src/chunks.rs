//! Chunked bodies: where one ends.
//!
//! - However it is cut, it ends at the same byte, or is refused.
//! - What is taken here is what another reader takes: each chunk is as long as the parser of the
//!   HTTP library says, and the body ends where a walk by the letter of RFC 9112 ends.

use mooring::server::framing::{BadChunk, Chunks, Framing};

use super::cuts;

const LEN_MAX: usize = 64 << 10;

pub fn check(data: &[u8]) {
    let data = &data[..data.len().min(LEN_MAX)];
    let whole = taken([data]);
    for cut in cuts(data.len()) {
        let (start, end) = data.split_at(cut);
        assert_eq!(taken([start, end]), whole, "cut after {cut} bytes");
    }
    assert_eq!(taken(data.chunks(1)), whole, "byte by byte");
    assert_eq!(taken(data.chunks(7)), whole, "by sevens");
    if let Ok((bytes, is_over)) = whole {
        assert!(bytes == data.len() || is_over, "what does not end takes all");
        check_by_the_letter(data, bytes, is_over);
    }
}

/// How many bytes belong to the body, and whether it ends there.
fn taken<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(usize, bool), BadChunk> {
    let mut framing = Framing::Chunked(Chunks::default());
    let mut bytes = 0;
    for piece in pieces {
        let taken = framing.take(piece)?;
        assert!(taken == piece.len() || framing.is_over());
        bytes += taken;
        if framing.is_over() {
            break;
        }
    }
    Ok((bytes, framing.is_over()))
}

fn check_by_the_letter(data: &[u8], bytes: usize, is_over: bool) {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&data[at..])
        else {
            // The line is not whole; one that another reader refuses must not be passed on.
            let parsed = httparse::parse_chunk_size(&data[at..]);
            assert!(parsed.is_ok(), "another reader refuses the size at {at}");
            assert!(!is_over, "there is an end without a last chunk");
            return;
        };
        at += line;
        if size == 0 {
            break;
        }
        let Some(after) = usize::try_from(size).ok().and_then(|size| at.checked_add(size)) else {
            assert!(!is_over);
            return;
        };
        let Some(line_break) = data.get(after..after + 2) else {
            assert!(!is_over, "the end is beyond what there is");
            return;
        };
        assert_eq!(line_break, b"\r\n", "after the data of a chunk at {at}");
        at = after + 2;
    }
    loop {
        let Some(end) = data[at..].windows(2).position(|pair| pair == b"\r\n") else {
            assert!(!is_over, "there is an end without an empty line");
            return;
        };
        at += end + 2;
        if end == 0 {
            break;
        }
    }
    assert_eq!((at, true), (bytes, is_over));
}
