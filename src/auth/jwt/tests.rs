//! Tests of keys, times and the table of tokens. Whole tokens are tried over a gateway.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::verified::{Forged, Verified, hash};
use super::*;

const P256: &str = "-----BEGIN PUBLIC KEY-----\n\
    MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEk4HmuRKUSBqOkR3mbf0jyFDHLqdk\n\
    AjbJ+dYYuibbuRbiAlrle4ciMdQEJF46rm7Nf3WySFN+s5ZmJFthSo4sxA==\n\
    -----END PUBLIC KEY-----\n";
const ED25519: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
    -----END PUBLIC KEY-----\n";

#[test]
fn keys_are_read_from_pem_and_private_ones_are_refused() {
    let both = KeySet::parse(&format!("{P256}{ED25519}")).unwrap();
    assert_eq!(both.len(), 2);
    for (text, told) in [
        ("", "has no public key"),
        ("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n", "a private key"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "none of RSA"),
        ("{}", "no list `keys`"),
        ("{", "is no JSON"),
        (r#"{"keys":[{"kty":"oct","k":"AA"}]}"#, "has no public key"),
        (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, "has no public key"),
        (r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}"#, "has no public key"),
        (r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA"}]}"#, "a private key"),
    ] {
        let problem = KeySet::parse(text).unwrap_err();
        assert!(problem.contains(told), "{text}: {problem}");
    }
}

#[test]
fn keys_for_other_uses_are_left_out() {
    let x = "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE";
    let count = |more: &str| {
        let key = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"{more}}}"#);
        KeySet::parse(&format!(r#"{{"keys":[{key}]}}"#)).map_or(0, |keys| keys.len())
    };
    for good in ["", r#","use":"sig""#, r#","alg":"EdDSA""#, r#","alg":"Ed25519","kid":"a""#] {
        assert_eq!(count(good), 1, "{good}");
    }
    // What a server publishes by mistake is everybody's.
    let published = format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{x}","d":"AA"}}]}}"#);
    assert!(KeySet::published(published.as_bytes()).unwrap().is_empty());
    for other in [r#","use":"enc""#, r#","alg":"RS256""#, r#","key_ops":["sign"]"#, r#","kid":7"#] {
        assert_eq!(count(other), 0, "{other}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_one_and_nameless_ones_are_few() {
    let twice = KeySet::parse(&format!("{ED25519}{ED25519}")).unwrap();
    assert_eq!(twice.len(), 1);
    let many = |count: u8| {
        let key = |number: u8| {
            let x = URL_SAFE_NO_PAD.encode([number; 32]);
            format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}"}}"#)
        };
        let keys: Vec<String> = (0..count).map(key).collect();
        KeySet::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
    };
    assert_eq!(many(4).unwrap().find(keys::Algorithm::EdDsa, Some("a")).unwrap().len(), 4);
    assert!(many(5).unwrap_err().contains("which one it means"));
    let none = KeySet::published(br#"{"keys":[{"kty":"oct","k":"AA"}]}"#).unwrap();
    assert!(none.is_empty());
    assert!(KeySet::published(b"{}").is_err());
}

#[test]
fn a_time_is_a_number_of_seconds() {
    let of = |text: &str| millis(&serde_json::from_str(text).unwrap());
    assert_eq!(of("1"), Ok(1_000));
    assert_eq!(of("1.5"), Ok(1_500));
    assert_eq!(of("1e300"), Ok(6_000_000_000_000_000));
    for bad in ["-1", "\"1\"", "null", "true", "[1]", "-0.5"] {
        assert_eq!(of(bad), Err(Fault::Time), "{bad}");
    }
}

fn token(until: u64) -> Arc<Token> {
    let rules = JwtRules {
        issuer: "i".to_owned(),
        audience: "a".to_owned(),
        keys_url: None,
        cookie: None,
        user_claim: "sub".to_owned(),
        role_claim: None,
        group_roles: Vec::new(),
        default_role: None,
    };
    let name = "ada".parse().unwrap();
    let user = User { name, role: Role::Artist, generation: 0, key: None, password: None };
    let keys = KeySet::parse(ED25519).unwrap();
    let key = Arc::clone(keys.find(keys::Algorithm::EdDsa, Some("any")).unwrap()[0]);
    Arc::new(Token { user: Arc::new(user), until, rules: Arc::new(rules), key })
}

/// Nothing that a token says has to be checked by its signature first: that costs most.
#[test]
fn a_forged_token_is_refused_for_what_it_says_before_its_signature_is_checked() {
    let rules = Arc::clone(&token(0).rules);
    let keys = KeySet::parse(ED25519).unwrap();
    let now = 1_000_000_000;
    let fault = |header: &str, claims: &str| {
        let part = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
        let parts = [part(header.as_bytes()), part(claims.as_bytes()), part(&[7; 64])];
        verify(parts.join(".").as_bytes(), (&rules, &keys), now).unwrap_err()
    };
    let claims = |more: &str| format!(r#"{{"iss":"i","aud":"a","sub":"ada"{more}}}"#);
    let good = r#","exp":1000100"#;
    let header = r#"{"alg":"EdDSA"}"#;
    for (claims, expected) in [
        (claims(good), Fault::Signature),
        (claims(r#","exp":999000"#), Fault::Expired),
        (claims(r#","exp":1000100,"nbf":1000090"#), Fault::Early),
        (claims(good).replace("\"i\"", "\"j\""), Fault::Issuer),
        (claims(good).replace("\"a\"", "\"b\""), Fault::Audience),
        (claims(&format!(r#"{good},"cnf":{{"jkt":"x"}}"#)), Fault::Bound),
        (
            claims(&format!(r#"{good},"events":{{"http://schemas.openid.net/x":{{}}}}"#)),
            Fault::Type,
        ),
        (claims(&format!(r#"{good},"events":{{"a":1,"urn:ietf:params:x":null}}"#)), Fault::Type),
        // A server's own claims of that name.
        (claims(&format!(r#"{good},"events":["summer","http://a/b"]"#)), Fault::Signature),
        (claims(&format!(r#"{good},"events":{{"summer":true}}"#)), Fault::Signature),
        (claims(&format!(r#"{good},"events":"all""#)), Fault::Signature),
        (claims(&format!(r#"{good},"events":null"#)), Fault::Signature),
    ] {
        assert_eq!(fault(header, &claims), expected, "{claims}");
    }
    for (kind, expected) in [
        ("Application/at+JWT", Fault::Signature),
        ("JWT", Fault::Signature),
        ("application/logout+jwt", Fault::Type),
        ("text/jwt", Fault::Type),
    ] {
        let header = format!(r#"{{"alg":"EdDSA","typ":"{kind}"}}"#);
        assert_eq!(fault(&header, &claims(good)), expected, "{kind}");
    }
}

#[test]
fn forged_tokens_are_remembered_and_not_without_end() {
    let mut forged = Forged::default();
    let of = |number: usize| hash(number.to_string().as_bytes());
    for number in 0..10_000 {
        assert!(!forged.has(&of(number)));
        forged.note(of(number));
        assert!(forged.has(&of(number)));
    }
    assert!(forged.has(&of(9_600)) && !forged.has(&of(8_000)));
}

#[test]
fn a_token_holds_until_its_end() {
    let token = token(5_000);
    assert_eq!(token.left(0), Some(Duration::from_secs(5)));
    assert_eq!(token.left(4_999), Some(Duration::from_millis(1)));
    assert_eq!(token.left(5_000), None);
    assert_eq!(token.left(u64::MAX), None);
}

#[test]
fn a_full_table_forgets_what_was_not_used_lately() {
    let (mut table, token) = (Verified::default(), token(1));
    let of = |number: usize| hash(number.to_string().as_bytes());
    for number in 0..100_000 {
        drop(table.keep(of(number), Arc::clone(&token)));
        assert!(table.get(&of(0)).0.is_some(), "it is used all the time: {number}");
    }
    assert!(table.len() <= 16_384, "{}", table.len());
    assert!(table.get(&of(1)).0.is_none() && table.get(&of(99_999)).0.is_some());
    table.forget(&of(0));
    assert!(table.get(&of(0)).0.is_none());
}
