//! How much work a graph is, as far as its numbers say.

/// No graph is more work: what is learned from one is used for others.
pub(super) const SIZE_MAX: u64 = 10_000_000_000_000;

/// What a size is made of: others cannot be compared.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Measure {
    #[default]
    Nothing,
    Pixels,
    Steps,
    Both,
}

/// The numbers of one node that say how large its pictures are.
#[derive(Default)]
pub(super) struct Sizes {
    width: Option<u64>,
    height: Option<u64>,
    batch: Option<u64>,
    frames: Option<u64>,
    steps: Option<u64>,
}

impl Sizes {
    /// An input of the node has this value.
    pub(super) fn say(&mut self, input: &[u8], value: &[u8]) {
        let place = match input {
            b"steps" => &mut self.steps,
            b"width" => &mut self.width,
            b"height" => &mut self.height,
            b"batch_size" => &mut self.batch,
            b"length" | b"frames" => &mut self.frames,
            _ => return,
        };
        *place = whole(value);
    }
}

/// The steps of all samplers, and the pixels of the largest pictures.
#[derive(Default)]
pub(super) struct Work {
    steps: u64,
    pixels: u64,
}

impl Work {
    pub(super) fn add(&mut self, it: &Sizes) {
        self.steps = self.steps.saturating_add(it.steps.unwrap_or(0));
        if let (Some(width), Some(height)) = (it.width, it.height) {
            let area = width.saturating_mul(height);
            let pictures = it.batch.unwrap_or(1).saturating_mul(it.frames.unwrap_or(1));
            self.pixels = self.pixels.max(area.saturating_mul(pictures));
        }
    }

    pub(super) fn size(&self) -> (Measure, u64) {
        let (measure, size) = match (self.steps, self.pixels) {
            (0, 0) => (Measure::Nothing, 0),
            (0, pixels) => (Measure::Pixels, pixels),
            (steps, 0) => (Measure::Steps, steps),
            (steps, pixels) => (Measure::Both, steps.saturating_mul(pixels)),
        };
        (measure, size.min(SIZE_MAX))
    }
}

/// A number that is greater than nothing, without what follows its point.
fn whole(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let number = text.parse::<f64>().ok().filter(|number| (1.0..1e15).contains(number))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Some(number as u64)
}
