//! The two forms of a scrape: OpenMetrics 1.0, and the text format 0.0.4 of Prometheus. Pure.
//!
//! They differ in a few words: the type of a counter stands at the name with `_total`, there are no
//! units, and no end.

use http::HeaderMap;
use http::header::ACCEPT;

/// What a scrape gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exposition {
    OpenMetrics,
    /// What every tool reads, and what who asks for nothing gets.
    Text,
}

impl Exposition {
    /// What `Accept` prefers (RFC 9110 section 12.5.1). A tie is for the text.
    #[must_use]
    pub fn wanted(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let (mut open, mut text) = (0, 0);
        for range in values.flat_map(|value| value.split(',')) {
            let (name, weight) = weighed(range);
            match name.as_str() {
                "application/openmetrics-text" => open = open.max(weight),
                "text/plain" | "text/*" => text = text.max(weight),
                _ => {}
            }
        }
        if text < open { Self::OpenMetrics } else { Self::Text }
    }

    /// The `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The scrape in this form.
    pub(super) fn of(self, open_metrics: String) -> String {
        match self {
            Self::OpenMetrics => open_metrics,
            Self::Text => as_text(&open_metrics),
        }
    }
}

/// A media range and its weight in thousandths. Other parameters, such as the version, do not
/// count: there is one version of each.
fn weighed(range: &str) -> (String, u16) {
    let mut parts = range.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let given = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    // A weight that cannot be read refuses nothing.
    let weight = given.and_then(|text| text.parse::<f32>().ok()).unwrap_or(1.0);
    (name, (weight.clamp(0.0, 1.0) * 1_000.0) as u16)
}

fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    // The line of the help comes before that of the type, which says how both are written.
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(named) {
            let (end, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            if let Some((_, help)) = help.take() {
                text.extend(["# HELP ", name, end, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, end, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

fn named(line: &str) -> Option<(&str, &str)> {
    line.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(accept: &[&'static str]) -> Exposition {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        Exposition::wanted(&headers)
    }

    #[test]
    fn a_scraper_gets_what_it_prefers_and_everybody_else_the_text() {
        let of_prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,\
            */*;q=0.2";
        assert_eq!(wanted(&[of_prometheus]), Exposition::OpenMetrics);
        assert_eq!(wanted(&["application/openmetrics-text"]), Exposition::OpenMetrics);
        assert_eq!(wanted(&["text/plain", "Application/OpenMetrics-Text"]), Exposition::Text);
        let reversed = ["application/openmetrics-text; q=0.2", "text/plain;version=0.0.4;q=0.9"];
        assert_eq!(wanted(&reversed), Exposition::Text);
        for accept in ["*/*", "text/html,*/*;q=0.8", "application/openmetrics-text;q=0", "", ";q=x"]
        {
            assert_eq!(wanted(&[accept]), Exposition::Text, "{accept}");
        }
        assert_eq!(wanted(&[]), Exposition::Text);
    }

    #[test]
    fn the_text_names_types_as_its_samples_are_named() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"# y\"} 1\n\
                    # HELP b Build.\n# TYPE b info\nb_info{v=\"1\"} 1\n\
                    # HELP t_seconds Time.\n# TYPE t_seconds gauge\n# UNIT t_seconds seconds\n\
                    t_seconds 0.5\n# HELP u U.\n# TYPE u unknown\nu 1\n# EOF\n";
        let text = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n\
                    # HELP b_info Build.\n# TYPE b_info gauge\nb_info{v=\"1\"} 1\n\
                    # HELP t_seconds Time.\n# TYPE t_seconds gauge\nt_seconds 0.5\n\
                    # HELP u U.\n# TYPE u untyped\nu 1\n";
        assert_eq!(Exposition::Text.of(open.to_owned()), text);
        assert_eq!(Exposition::OpenMetrics.of(open.to_owned()), open);
    }
}
