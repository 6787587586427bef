//! The pages for login and logout. They work without JavaScript, load nothing else, and cannot be
//! shown in a frame.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response};

use crate::auth::User;
use crate::body::ResponseBody;
use crate::front::html::{escaped, filled};
use crate::net::new_id;

const PAGE: &str = include_str!("login.html");

/// With the path of the front, the page to show afterwards, the token, and the name.
const FORM: &str = "\
{{said}}<form method=\"post\" action=\"{{prefix}}/-/login\">
<input type=\"hidden\" name=\"next\" value=\"{{next}}\">
<input type=\"hidden\" name=\"token\" value=\"{{token}}\">
<label for=\"name\">Name</label>
<input id=\"name\" name=\"name\" value=\"{{name}}\" autocomplete=\"username\" \
autocapitalize=\"none\" spellcheck=\"false\" maxlength=\"64\" autofocus>
<label for=\"password\">Password</label>
<input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\">
<details>
<summary>Log in with a key</summary>
<label for=\"key\">Key, in place of name and password</label>
<input id=\"key\" name=\"key\" type=\"password\" autocomplete=\"off\">
</details>
<button>Log in</button>
</form>
";

const ACCOUNT: &str = "\
{{said}}<p>You are <strong>{{name}}</strong> <span class=\"soft\">({{role}})</span>.</p>
<p><a href=\"{{prefix}}/\">Go to ComfyUI</a></p>
<form method=\"post\" action=\"{{prefix}}/-/logout\"><button>Log out</button></form>
<form method=\"post\" action=\"{{prefix}}/-/logout?everywhere=1\">
<button class=\"other\">Log out in all browsers</button></form>
";

/// With a key there is no session to end.
const BY_KEY: &str = "\
<p>You are <strong>{{name}}</strong> <span class=\"soft\">({{role}})</span>. Your requests have a \
key, so there is nothing to log out of.</p>
<p><a href=\"{{prefix}}/\">Go to ComfyUI</a></p>
";

/// The text above the form.
#[derive(Clone, Copy, Debug)]
pub(super) enum Notice<'a> {
    None,
    /// Something succeeded.
    Done(&'a str),
    /// Something failed.
    Problem(&'a str),
}

impl Notice<'_> {
    fn to_html(self) -> String {
        let (class, role, text) = match self {
            Self::None => return String::new(),
            Self::Done(text) => ("said", "status", text),
            Self::Problem(text) => ("said problem", "alert", text),
        };
        format!("<p class=\"{class}\" role=\"{role}\">{}</p>\n", escaped(text))
    }
}

/// The values that are filled into the form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form<'a> {
    /// The path of the front, without a slash at its end.
    pub prefix: &'a str,
    /// Where to go after the login.
    pub next: &'a str,
    pub token: &'a str,
    /// The name that was typed before.
    pub name: &'a str,
    pub notice: Notice<'a>,
}

/// How the user was let in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum By {
    Session,
    Key,
}

/// Puts the form into an answer. The status of the answer stays.
pub(super) fn form(response: &mut Response<ResponseBody>, form: Form<'_>) {
    let Form { prefix, next, token, name, notice } = form;
    let body = filled(
        FORM,
        &[
            ("said", &notice.to_html()),
            ("prefix", prefix),
            ("next", &escaped(next)),
            ("token", token),
            ("name", &escaped(name)),
        ],
    );
    put(response, "Log in", &body);
}

/// Shows users who they are, with a button to log out.
pub(super) fn account(response: &mut Response<ResponseBody>, user: &User, by: By, prefix: &str) {
    let (page, title) = match by {
        By::Session => (ACCOUNT, "You are logged in"),
        By::Key => (BY_KEY, "You have a key"),
    };
    let name = user.name.as_str();
    let values = [("said", ""), ("name", name), ("role", user.role.as_str()), ("prefix", prefix)];
    put(response, title, &filled(page, &values));
}

fn put(response: &mut Response<ResponseBody>, title: &str, body: &str) {
    let nonce = new_id().simple().to_string();
    let values = [("title", title), ("nonce", nonce.as_str()), ("body", body)];
    *response.body_mut() = ResponseBody::whole(filled(PAGE, &values));
    dress(response.headers_mut(), &nonce);
}

/// Browsers name the page of a form only if its referrer policy allows that.
fn dress(headers: &mut HeaderMap, nonce: &str) {
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn text(response: &Response<ResponseBody>) -> String {
        let ResponseBody::Whole(Some(body)) = response.body() else { panic!("a whole page") };
        String::from_utf8(body.to_vec()).unwrap()
    }

    fn shown(name: &str, next: &str, notice: Notice<'_>) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        form(&mut response, Form { prefix: "/comfy", next, token: "t0", name, notice });
        response
    }

    #[test]
    fn what_people_type_is_text_and_nothing_else() {
        let evil = "\"><script>alert(1)</script>{{token}}";
        let page = text(&shown(evil, evil, Notice::Problem(evil)));
        assert!(!page.contains("<script") && !page.contains("alert(1)</"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 3);
        assert_eq!(page.matches("t0").count(), 1, "what is filled in is not looked at again");
        assert!(page.contains("role=\"alert\""));
    }

    #[test]
    fn a_page_asks_for_nothing_and_allows_nothing() {
        let response = shown("", "/comfy/", Notice::None);
        let page = text(&response);
        for word in ["<script", "src=", "<link", "url(", "@import", "http:", "https:", "{{"] {
            assert!(!page.contains(word), "{word}");
        }
        assert!(page.contains("action=\"/comfy/-/login\""));
        let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        let nonce = policy.split("'nonce-").nth(1).unwrap().split('\'').next().unwrap();
        assert!(policy.starts_with("default-src 'none'") && page.contains(nonce), "{policy}");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        let other = shown("", "/", Notice::None);
        assert_ne!(other.headers()[CONTENT_SECURITY_POLICY], policy, "each has its own");
    }

    #[test]
    fn who_is_logged_in_is_told_so_and_can_leave() {
        let name = "ada".parse().unwrap();
        let user = User { name, role: Role::Viewer, generation: 1, key: None, password: None };
        let mut response = Response::new(ResponseBody::empty());
        account(&mut response, &user, By::Session, "");
        let page = text(&response);
        assert!(page.contains("<strong>ada</strong>") && page.contains("(viewer)"), "{page}");
        assert_eq!(page.matches("action=\"/-/logout").count(), 2);
        account(&mut response, &user, By::Key, "");
        assert!(!text(&response).contains("<form"));
    }
}
