//! Creates, reads, changes and writes real pictures as PNG and JPEG.

use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// A batch of pictures, as ComfyUI's IMAGE.
pub(super) type Batch = Vec<RgbImage>;

/// `EmptyImage`: one colour, given as 0xRRGGBB.
pub(super) fn empty(width: u32, height: u32, batch: u32, color: u32) -> Batch {
    let [_, red, green, blue] = color.to_be_bytes();
    let picture = RgbImage::from_pixel(width, height, Rgb([red, green, blue]));
    vec![picture; batch as usize]
}

/// Reads a picture in any format that uploads use.
pub(super) fn read(bytes: &[u8]) -> Option<Batch> {
    image::load_from_memory(bytes).ok().map(|picture| vec![picture.to_rgb8()])
}

pub(super) fn invert(batch: &Batch) -> Batch {
    let mut inverted = batch.clone();
    inverted.iter_mut().for_each(imageops::invert);
    inverted
}

/// A width or height of 0 keeps the proportions.
pub(super) fn scale(batch: &Batch, width: u32, height: u32) -> Batch {
    let scaled = |picture: &RgbImage| {
        let (old_width, old_height) = picture.dimensions();
        let (width, height) = match (width, height) {
            (0, 0) => (old_width, old_height),
            (0, height) => ((old_width * height / old_height.max(1)).max(1), height),
            (width, 0) => (width, (old_height * width / old_width.max(1)).max(1)),
            sized => sized,
        };
        imageops::resize(picture, width, height, FilterType::Triangle)
    };
    batch.iter().map(scaled).collect()
}

/// Scales so that the longer side has this length.
pub(super) fn scale_to(batch: &Batch, largest: u32) -> Batch {
    let (width, height) = batch.first().map_or((1, 1), RgbImage::dimensions);
    if height < width { scale(batch, largest, 0) } else { scale(batch, 0, largest) }
}

/// A PNG with text chunks, as ComfyUI saves its outputs.
pub(super) fn png(picture: &RgbImage, texts: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    for (keyword, text) in texts {
        // Only an invalid keyword could be refused, and ours are valid.
        let _ = encoder.add_text_chunk((*keyword).to_owned(), text.clone());
    }
    // Writing to memory does not fail.
    if let Ok(mut writer) = encoder.write_header() {
        let _ = writer.write_image_data(picture.as_raw());
    }
    bytes
}

/// A small JPEG for a preview.
pub(super) fn jpeg(picture: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = JpegEncoder::new_with_quality(&mut bytes, 80).encode_image(picture);
    bytes
}

/// Converts a picture to another format, for `preview=` in a view.
pub(super) fn convert(bytes: &[u8], format: &str) -> Option<(Vec<u8>, &'static str)> {
    let picture = image::load_from_memory(bytes).ok()?;
    let (target, kind) = match format {
        "jpeg" => (ImageFormat::Jpeg, "image/jpeg"),
        _ => (ImageFormat::WebP, "image/webp"),
    };
    let mut converted = Cursor::new(Vec::new());
    DynamicImage::from(picture.to_rgb8()).write_to(&mut converted, target).ok()?;
    Some((converted.into_inner(), kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_what_they_are_said_to_be() {
        let red = empty(4, 2, 1, 0x00ff_0000);
        let bytes = png(&red[0], &[("prompt", "{}".to_owned())]);
        assert_eq!(read(&bytes).as_ref(), Some(&red));
        assert_eq!(invert(&red)[0].get_pixel(0, 0), &Rgb([0, 255, 255]));
        assert_eq!(scale(&red, 8, 0)[0].dimensions(), (8, 4));
        let at = bytes.windows(6).position(|window| window == b"prompt");
        assert!(at.is_some(), "the prompt travels in a text chunk");
    }
}
