//! Where to go after the login: to the page that was requested, if it is one of ours.

use std::borrow::Cow;

use http::Uri;
use percent_encoding::percent_decode_str;

use crate::auth::head::TOKEN;
use crate::comfy::query;
use crate::config::{BasePath, PlaceBelow};

/// Longer than the address of a page.
const BYTES_MAX: usize = 2_048;

/// The page if nothing in particular was requested.
const START: &str = "/";

/// The requested path as the browser knows it, without a key, which must not be shown on a page.
/// `uri` is below the base path.
#[must_use]
pub(super) fn of_request(uri: &Uri, base: &BasePath) -> String {
    let query = match query::without_parameter(uri.query().unwrap_or(""), TOKEN) {
        query if query.is_empty() => String::new(),
        query => format!("?{query}"),
    };
    let next = format!("{}{}{query}", base.prefix(), uri.path());
    if below(&next, base).is_some() { next } else { base.to_string() }
}

/// The path to go to, below the base path, which is added later.
///
/// Anything that is not one of our pages is replaced by the start: another host (`//host`,
/// `https://host`, and what browsers treat like this, such as `/\host` or any text with a tab or a
/// line break), a path outside the base path, also by `..`, and the login page itself.
#[must_use]
pub(super) fn checked<'a>(next: &'a str, base: &BasePath) -> &'a str {
    below(next, base).unwrap_or(START)
}

fn below<'a>(next: &'a str, base: &BasePath) -> Option<&'a str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    if BYTES_MAX < next.len() || !next.bytes().all(is_plain) || !is_path(next) {
        return None;
    }
    let rest = match base.take_off(next) {
        PlaceBelow::Below(rest) => rest,
        PlaceBelow::Itself(_) => START,
        PlaceBelow::Outside => return None,
    };
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let path: Cow<'_, str> = percent_decode_str(path).decode_utf8_lossy();
    let mut parts = path.split(['/', '\\']);
    let is_ours = is_path(rest)
        && parts.all(|part| part != "..")
        && !path.contains("/-/login")
        && !path.contains("/-/logout");
    is_ours.then_some(rest)
}

/// True for an absolute path, which does not begin with two slashes (RFC 3986 section 4.2).
fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.starts_with("//")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base(text: &str) -> BasePath {
        BasePath::parse(text).unwrap()
    }

    #[test]
    fn a_path_of_ours_is_gone_to() {
        for next in ["/", "/?a=b", "/history/x?max=1#top", "/a//b", "/%2F/x", "/-/whoami", "/..."] {
            assert_eq!(checked(next, &base("/")), next, "{next}");
        }
        for (next, rest) in [
            ("/comfy/", "/"),
            ("/comfy", "/"),
            ("/comfy?x=1", "/"),
            ("/comfy/queue?x=/y", "/queue?x=/y"),
            ("/%63omfy/queue", "/queue"),
        ] {
            assert_eq!(checked(next, &base("/comfy/")), rest, "{next}");
        }
    }

    #[test]
    fn what_is_no_page_of_ours_is_the_start() {
        let long = format!("/{}", "x".repeat(BYTES_MAX));
        for next in [
            "",
            "queue",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/x\\..\\y",
            "https://evil.example/",
            "http:evil.example",
            "javascript:alert(1)",
            " /",
            "/ /evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/x\r\nSet-Cookie: a=b",
            "/\u{1}",
            "/é",
            "/..//evil.example",
            "/x/../../y",
            "/x/%2e%2E/y",
            "/x%2f..%2fy",
            "/-/login",
            "/-/login?next=/-/login",
            "/-/logout",
            "/api/-/login",
            "/%2d/login",
            &long,
        ] {
            assert_eq!(checked(next, &base("/")), "/", "{next:?}");
        }
        for next in ["/", "/queue", "/comfyx/", "/comfy//evil.example", "/comfy/../x", "//comfy/"] {
            assert_eq!(checked(next, &base("/comfy/")), "/", "{next}");
        }
    }

    #[test]
    fn what_was_asked_for_is_gone_to_without_its_key() {
        let of = |uri: &str, at: &str| of_request(&uri.parse().unwrap(), &base(at));
        assert_eq!(of("/", "/"), "/");
        assert_eq!(of("/queue?a=b&token=x", "/"), "/queue?a=b");
        assert_eq!(of("/view?%74oken=x", "/comfy/"), "/comfy/view");
        assert_eq!(of("/-/login?next=/x", "/comfy/"), "/comfy/");
        assert_eq!(of("//evil.example/x", "/comfy/"), "/comfy/");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3_000))]

        /// However special characters of URLs are combined, the result stays on this host.
        #[test]
        fn no_text_leads_elsewhere(
            next in "(/comfy)?[/\\\\.:@?#%a2eEfFcC5 \t\n]{0,12}(evil\\.example|login)?",
            at in prop_oneof![Just("/"), Just("/comfy/")],
        ) {
            let rest = checked(&next, &base(at));
            let location = format!("{}{rest}", base(at).prefix());
            for text in [rest, &location] {
                prop_assert!(text.starts_with('/') && !text.starts_with("//"), "{next:?} {text:?}");
                prop_assert!(text.bytes().all(|it| it.is_ascii_graphic() && it != b'\\'));
            }
        }
    }
}
