//! Draws time to picture against load, as SVG.

use std::fmt::Write;

/// A line of the plot.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
    /// Load, and seconds.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Seconds at the lower and at the upper edge: each decade is as high.
const SECONDS: (f64, f64) = (10.0, 10_000.0);

fn x(load: f64, loads: (f64, f64)) -> f64 {
    LEFT + (load - loads.0) / (loads.1 - loads.0) * (WIDTH - LEFT - RIGHT)
}

fn y(seconds: f64) -> f64 {
    let (low, high) = (SECONDS.0.ln(), SECONDS.1.ln());
    let part = (seconds.clamp(SECONDS.0, SECONDS.1).ln() - low) / (high - low);
    HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
}

/// The picture. `lines` have the same loads.
pub(crate) fn svg(title: &str, lines: &[Line]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter().map(|point| point.0));
    let loads = (all().fold(1.0, f64::min), all().fold(0.0, f64::max));
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{title}</text>\n"
    );
    axes(&mut out, loads, lines);
    let mut labels: Vec<(f64, usize)> = lines
        .iter()
        .enumerate()
        .filter_map(|(index, line)| Some((y(line.points.last()?.1), index)))
        .collect();
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = TOP - 16.0;
    for (height, index) in labels {
        let line = &lines[index];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(load, seconds)| format!("{:.1},{:.1}", x(*load, loads), y(*seconds)))
            .collect();
        lowest = height.max(lowest + 16.0);
        let _ = write!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{points}\"/>\n\
             <text x=\"{left:.1}\" y=\"{lowest:.1}\" dy=\"4\" fill=\"{colour}\">{name}</text>\n",
            colour = line.colour,
            points = points.join(" "),
            left = WIDTH - RIGHT + 8.0,
            name = line.name,
        );
    }
    out.push_str("</svg>\n");
    out
}

fn axes(out: &mut String, loads: (f64, f64), lines: &[Line]) {
    for seconds in [10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0] {
        let _ = write!(
            out,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" \
             stroke=\"#dddddd\"/>\n\
             <text x=\"{text}\" y=\"{at:.1}\" dy=\"4\" text-anchor=\"end\">{seconds}</text>\n",
            right = WIDTH - RIGHT,
            at = y(seconds),
            text = LEFT - 8.0,
        );
    }
    for (load, _) in lines.first().map_or(&[][..], |line| line.points.as_slice()) {
        let _ = writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{low}\" text-anchor=\"middle\">{load}</text>",
            at = x(*load, loads),
            low = HEIGHT - BOTTOM + 20.0,
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{low}\">load of the fleet; seconds from submission to picture, \
         mean, each decade as high</text>",
        low = HEIGHT - 10.0,
    );
}
