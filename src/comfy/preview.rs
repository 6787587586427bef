//! Reads binary frames: a big-endian type, then the content (ComfyUI `protocol.py`).
//!
//! | type | content |
//! |---|---|
//! | 1 | `u32` format (1 JPEG, 2 PNG), picture |
//! | 3 | `u32` length, node id, text |
//! | 4 | `u32` length, JSON metadata, picture (0.3.45, if negotiated) |

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;

/// A binary frame, with the fields that are read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Binary<'a> {
    /// Type 1: belongs to the node that is running.
    Preview { format: Format },
    /// Type 4: names its prompt and node.
    PreviewWithMetadata { prompt: Cow<'a, str>, node: Cow<'a, str> },
    /// Type 3.
    Text,
    /// Any other type, or a frame that is too short for its type.
    Unknown,
}

/// How the picture of a type 1 frame is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// Previews of samplers.
    Jpeg,
    /// Results of nodes that send them on the socket: no preview is encoded without loss.
    Png,
    Other,
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow)]
    prompt_id: Cow<'a, str>,
    #[serde(borrow)]
    node_id: Cow<'a, str>,
}

/// Reads one binary message.
#[must_use]
pub fn read(payload: &[u8]) -> Binary<'_> {
    match number(payload) {
        Some((1, rest)) => Binary::Preview { format: format(rest) },
        Some((3, _)) => Binary::Text,
        Some((4, rest)) => {
            let metadata = split_metadata(rest)
                .and_then(|(json, _)| serde_json::from_slice::<Metadata<'_>>(json).ok());
            match metadata {
                Some(Metadata { prompt_id, node_id }) => {
                    Binary::PreviewWithMetadata { prompt: prompt_id, node: node_id }
                }
                None => Binary::Unknown,
            }
        }
        Some(_) | None => Binary::Unknown,
    }
}

fn format(rest: &[u8]) -> Format {
    match number(rest) {
        Some((1, _)) => Format::Jpeg,
        Some((2, _)) => Format::Png,
        Some(_) | None => Format::Other,
    }
}

/// The beginning of a text (type 3), up to and including its node: of two texts with the same
/// beginning the later one counts. `None` for other frames and for a truncated one.
#[must_use]
pub fn text_head(payload: &[u8]) -> Option<&[u8]> {
    let (3, rest) = number(payload)? else { return None };
    let (length, _) = number(rest)?;
    payload.get(..usize::try_from(length).ok()?.checked_add(8)?)
}

/// Converts a type 4 preview to type 1, for clients that did not negotiate; `None` for other
/// frames.
#[must_use]
pub fn downgrade(payload: &Bytes) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Kind<'a> {
        #[serde(borrow)]
        image_type: Cow<'a, str>,
    }
    let (4, rest) = number(payload)? else { return None };
    let (json, picture) = split_metadata(rest)?;
    let kind: Kind<'_> = serde_json::from_slice(json).ok()?;
    let format: u32 = if kind.image_type == "image/png" { 2 } else { 1 };
    let mut plain = Vec::with_capacity(8 + picture.len());
    plain.extend_from_slice(&1_u32.to_be_bytes());
    plain.extend_from_slice(&format.to_be_bytes());
    plain.extend_from_slice(picture);
    Some(plain.into())
}

fn split_metadata(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(rest)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_metadata(json: &str, picture: &[u8]) -> Bytes {
        let mut frame = 4_u32.to_be_bytes().to_vec();
        frame.extend_from_slice(&u32::try_from(json.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(json.as_bytes());
        frame.extend_from_slice(picture);
        frame.into()
    }

    #[test]
    fn a_preview_with_metadata_becomes_a_plain_one() {
        let json = r#"{"node_id": "2", "prompt_id": "p", "image_type": "image/png"}"#;
        let frame = with_metadata(json, b"PNG");
        let expected = Binary::PreviewWithMetadata { prompt: "p".into(), node: "2".into() };
        assert_eq!(read(&frame), expected);
        assert_eq!(downgrade(&frame).as_deref(), Some(&b"\0\0\0\x01\0\0\0\x02PNG"[..]));
        let jpeg = with_metadata(r#"{"image_type": "image/jpeg"}"#, b"J");
        assert_eq!(downgrade(&jpeg).as_deref(), Some(&b"\0\0\0\x01\0\0\0\x01J"[..]));
    }

    #[test]
    fn a_plain_picture_says_how_it_is_encoded_and_a_text_where_it_stands() {
        let plain = |format: u8| [0, 0, 0, 1, 0, 0, 0, format];
        assert_eq!(read(&plain(1)), Binary::Preview { format: Format::Jpeg });
        assert_eq!(read(&plain(2)), Binary::Preview { format: Format::Png });
        assert_eq!(read(&plain(9)), Binary::Preview { format: Format::Other });
        assert_eq!(read(b"\0\0\0\x01"), Binary::Preview { format: Format::Other });
        let text = b"\0\0\0\x03\0\0\0\x0212hello";
        assert_eq!(read(text), Binary::Text);
        assert_eq!(text_head(text), Some(&text[..10]));
        for junk in [&b"\0\0\0\x03\0\0\0\x0912"[..], b"\0\0\0\x03\xff\xff\xff\xff", b"\0\0\0\x03"] {
            assert_eq!(text_head(junk), None, "{junk:?}");
        }
    }

    #[test]
    fn lying_lengths_are_unknown_frames() {
        assert_eq!(read(b"\0\0\0\x04\xff\xff\xff\xff{}"), Binary::Unknown);
        assert_eq!(read(b"\0\0\0"), Binary::Unknown);
        assert_eq!(downgrade(&Bytes::from_static(b"\0\0\0\x04\0\0\0\x09{}")), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
            let _ = text_head(&bytes);
            let _ = downgrade(&Bytes::from(bytes));
        }
    }
}
