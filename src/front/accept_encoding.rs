//! Finds the content coding that a caller wants (RFC 9110 section 12.5.3). Pure.

use http::header::{ACCEPT_ENCODING, HeaderMap};

/// A coding that Mooring can produce.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Coding {
    Gzip,
    Brotli,
}

impl Coding {
    /// The one with the smallest results comes first.
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// The name in `Content-Encoding`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// Whether a coding would make the data smaller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Worth {
    Compressing,
    Nothing,
}

/// The form in which a caller gets the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Choice {
    AsItIs,
    Coded {
        coding: Coding,
        /// The caller also accepts it uncompressed, until this coding is ready.
        or_as_it_is: bool,
    },
    /// The caller refuses every form that we could send.
    Nothing,
}

/// How much a caller prefers a coding, in thousandths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Weight(u16);

/// The header, if there is one.
#[derive(Clone, Debug, Default)]
pub struct AcceptEncoding(Option<String>);

impl AcceptEncoding {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(ACCEPT_ENCODING).iter().peekable();
        if values.peek().is_none() {
            return Self(None);
        }
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        Self(Some(values.join(",")))
    }

    /// True if the caller accepts this coding. Without the header no coding is accepted, because
    /// that is what clients mean.
    #[must_use]
    pub fn accepts(&self, coding: &str) -> bool {
        self.weight(coding).is_some_and(|weight| 0 < weight.0)
    }

    /// The form that the caller prefers. If several are equal, the smallest one is chosen. If a
    /// coding is not worth its time, the data is sent uncompressed, unless the caller refuses that.
    #[must_use]
    pub fn choose(&self, worth: Worth) -> Choice {
        // If it is not named, it is acceptable as the last choice.
        let plain = match (self.named("identity"), self.named("*")) {
            (Some(weight), _) => Some(weight),
            (None, Some(Weight(0))) => Some(Weight(0)),
            (None, _) => None,
        };
        let is_refused = plain == Some(Weight(0));
        let weighted = Coding::ALL.map(|coding| (coding, self.weight(coding.as_str())));
        let mut best: Option<(Coding, Weight)> = None;
        for (coding, weight) in weighted {
            let Some(weight) = weight.filter(|weight| 0 < weight.0) else { continue };
            if best.is_none_or(|(_, most)| most.0 < weight.0) {
                best = Some((coding, weight));
            }
        }
        match (best, worth) {
            (None, _) if is_refused => Choice::Nothing,
            (None, _) => Choice::AsItIs,
            (Some((coding, _)), _) if is_refused => Choice::Coded { coding, or_as_it_is: false },
            (Some(_), Worth::Nothing) => Choice::AsItIs,
            (Some((_, weight)), Worth::Compressing) if plain.is_some_and(|it| weight.0 < it.0) => {
                Choice::AsItIs
            }
            (Some((coding, _)), Worth::Compressing) => Choice::Coded { coding, or_as_it_is: true },
        }
    }

    /// The weight of a coding, by its own name or by `*`.
    fn weight(&self, coding: &str) -> Option<Weight> {
        self.named(coding).or_else(|| self.named("*"))
    }

    /// The first weight that is given for a name.
    fn named(&self, wanted: &str) -> Option<Weight> {
        let members = self.0.as_deref()?.split(',');
        members.into_iter().find_map(|member| {
            let (name, parameters) = member.split_once(';').unwrap_or((member, ""));
            let name = name.trim();
            // Section 8.4.1.3.
            let is_it = name.eq_ignore_ascii_case(wanted)
                || (wanted == "gzip" && name.eq_ignore_ascii_case("x-gzip"));
            is_it.then(|| weight(parameters)).flatten()
        })
    }
}

/// A weight in the form of section 12.4.2, or 1 if there is none. An element with another parameter
/// is ignored.
fn weight(parameters: &str) -> Option<Weight> {
    let parameters = parameters.trim();
    if parameters.is_empty() {
        return Some(Weight(1_000));
    }
    let (name, value) = parameters.split_once('=')?;
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    let is_short = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    if !name.eq_ignore_ascii_case("q") || !is_short {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    match whole {
        "0" => Some(Weight(part)),
        "1" if part == 0 => Some(Weight(1_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(header: &str) -> AcceptEncoding {
        AcceptEncoding(Some(header.to_owned()))
    }

    const BROTLI: Choice = Choice::Coded { coding: Coding::Brotli, or_as_it_is: true };
    const GZIP: Choice = Choice::Coded { coding: Coding::Gzip, or_as_it_is: true };

    #[test]
    fn the_coding_that_is_liked_best_is_given_and_of_equals_the_smallest() {
        for (header, expected) in [
            ("gzip, deflate, br, zstd", BROTLI),
            ("gzip, deflate", GZIP),
            ("br;q=0.5, gzip", GZIP),
            ("br ; q=0.5 , gzip;q=0.499", BROTLI),
            ("GZIP;Q=1.000", GZIP),
            ("x-gzip", GZIP),
            ("*", BROTLI),
            ("*, br;q=0", GZIP),
            ("gzip;q=0.001", GZIP),
            ("identity;q=0.5, gzip;q=0.5", GZIP),
            ("identity, gzip;q=0.9", Choice::AsItIs),
            ("identity;q=0.2, *;q=0.1", Choice::AsItIs),
            ("", Choice::AsItIs),
            ("deflate, zstd", Choice::AsItIs),
            ("gzip;q=0, br;q=0.000", Choice::AsItIs),
            ("gzip;q=0, *;q=0, identity", Choice::AsItIs),
        ] {
            assert_eq!(asked(header).choose(Worth::Compressing), expected, "{header}");
        }
        assert_eq!(AcceptEncoding(None).choose(Worth::Compressing), Choice::AsItIs);
    }

    #[test]
    fn a_weight_that_is_none_makes_its_member_nothing() {
        for weight in ["q=2", "q=1.1", "q=-1", "q=0.0001", "q=nan", "q=inf", "q=", "q", "w=1", "1"]
        {
            let header = format!("gzip;{weight}");
            assert_eq!(asked(&header).choose(Worth::Compressing), Choice::AsItIs, "{header}");
            assert!(!asked(&header).accepts("gzip"), "{header}");
            let header = format!("identity;{weight}");
            assert_eq!(asked(&header).choose(Worth::Compressing), Choice::AsItIs, "{header}");
        }
        assert_eq!(asked("gzip;q=0.").choose(Worth::Compressing), Choice::AsItIs);
        assert_eq!(asked("gzip;q=1.").choose(Worth::Compressing), GZIP);
    }

    #[test]
    fn who_refuses_it_as_it_is_gets_a_coding_or_nothing() {
        let only = |coding| Choice::Coded { coding, or_as_it_is: false };
        for worth in [Worth::Compressing, Worth::Nothing] {
            for (header, expected) in [
                ("identity;q=0", Choice::Nothing),
                ("*;q=0", Choice::Nothing),
                ("deflate, *;q=0", Choice::Nothing),
                ("identity;q=0, gzip;q=0, br;q=0", Choice::Nothing),
                ("identity;q=0, gzip", only(Coding::Gzip)),
                ("gzip, *;q=0", only(Coding::Gzip)),
                ("identity;q=0, *", only(Coding::Brotli)),
                ("identity;q=0.0, *;q=0.1", only(Coding::Brotli)),
            ] {
                assert_eq!(asked(header).choose(worth), expected, "{header}");
            }
            assert_eq!(asked("*;q=0, identity").choose(worth), Choice::AsItIs);
        }
    }

    #[test]
    fn what_is_not_worth_it_is_given_as_it_is() {
        assert_eq!(asked("gzip, br").choose(Worth::Nothing), Choice::AsItIs);
        assert_eq!(asked("*").choose(Worth::Nothing), Choice::AsItIs);
    }

    #[test]
    fn a_header_in_several_lines_is_one_list() {
        let mut headers = HeaderMap::new();
        assert!(!AcceptEncoding::of(&headers).accepts("gzip"));
        for line in ["br;q=0", "gzip"] {
            headers.append(ACCEPT_ENCODING, http::HeaderValue::from_static(line));
        }
        let accepted = AcceptEncoding::of(&headers);
        assert!(accepted.accepts("gzip") && !accepted.accepts("br"));
    }
}
