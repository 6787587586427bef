//! Makes tokens, good ones and others, with keys of its own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use ring::{hmac, rand};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://login.example";
pub(crate) const AUDIENCE: &str = "comfy";

/// Which key signs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    Rsa,
    P256,
    Ed,
    /// Another key of the set, of the same kind.
    OtherEd,
    /// One that nobody knows.
    Stranger,
    /// The PEM text of the public key as a secret.
    SecretPem,
    /// The modulus as a secret.
    SecretModulus,
    /// An empty secret.
    Nothing,
}

/// The keys of whoever makes tokens.
pub(crate) struct Forge {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    other: Ed25519KeyPair,
    stranger: Ed25519KeyPair,
}

pub(crate) fn now() -> u64 {
    mooring::net::unix_millis() / 1_000
}

pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Of a user, for the next ten minutes.
pub(crate) fn claims(user: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": now() + 600, "sub": user })
}

/// The same with other values; null takes one out.
pub(crate) fn claims_with(changes: &[(&str, Value)]) -> Value {
    let mut claims = claims("ada");
    for (name, value) in changes {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(*name);
        } else {
            claims[*name] = value.clone();
        }
    }
    claims
}

pub(crate) fn header(algorithm: &str, id: &str) -> Value {
    json!({ "alg": algorithm, "kid": id, "typ": "JWT" })
}

fn ed() -> Ed25519KeyPair {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap()
}

impl Forge {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let rsa = PrivatePkcs8KeyDer::from_pem_slice(include_bytes!("rsa.pem")).unwrap();
        let rsa = RsaKeyPair::from_pkcs8(rsa.secret_pkcs8_der()).unwrap();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, made.as_ref(), &random).unwrap();
        Self { rsa, p256, ed: ed(), other: ed(), stranger: ed() }
    }

    fn rsa_public(&self) -> PublicKeyComponents<Vec<u8>> {
        self.rsa.public().into()
    }

    /// What whoever makes tokens publishes: also keys that mean nothing here.
    pub(crate) fn jwks(&self) -> Value {
        let rsa = self.rsa_public();
        let point = self.p256.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256",
              "n": encoded(rsa.n), "e": encoded(rsa.e) },
            { "kty": "EC", "kid": "p256", "crv": "P-256",
              "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            self.jwk("ed", &self.ed),
            self.jwk("other", &self.other),
            { "kty": "oct", "kid": "secret", "k": encoded("a secret of both") },
            { "kty": "EC", "kid": "p384", "crv": "P-384", "x": "AA", "y": "AA" },
        ] })
    }

    fn jwk(&self, id: &str, key: &Ed25519KeyPair) -> Value {
        json!({ "kty": "OKP", "kid": id, "crv": "Ed25519", "x": encoded(key.public_key()) })
    }

    /// The key of [`By::Stranger`].
    pub(crate) fn strange_jwk(&self, id: &str) -> Value {
        self.jwk(id, &self.stranger)
    }

    fn sign(&self, text: &[u8], by: By) -> Vec<u8> {
        let random = SystemRandom::new();
        let secret = |secret: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text).as_ref().to_vec()
        };
        match by {
            By::Rsa => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, text, &mut signature).unwrap();
                signature
            }
            By::P256 => {
                let random: &dyn rand::SecureRandom = &random;
                self.p256.sign(random, text).unwrap().as_ref().to_vec()
            }
            By::Ed => self.ed.sign(text).as_ref().to_vec(),
            By::OtherEd => self.other.sign(text).as_ref().to_vec(),
            By::Stranger => self.stranger.sign(text).as_ref().to_vec(),
            By::SecretPem => secret(include_bytes!("rsa_public.pem")),
            By::SecretModulus => secret(&self.rsa_public().n),
            By::Nothing => secret(b""),
        }
    }

    /// A token of these two texts, whatever they are.
    pub(crate) fn of_texts(&self, header: &str, claims: &str, by: By) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = encoded(self.sign(signed.as_bytes(), by));
        format!("{signed}.{signature}")
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value, by: By) -> String {
        self.of_texts(&header.to_string(), &claims.to_string(), by)
    }

    /// A good one.
    pub(crate) fn good(&self, claims: &Value) -> String {
        self.token(&header("EdDSA", "ed"), claims, By::Ed)
    }

    /// Those that let nobody in, with what is wrong with each.
    pub(crate) fn forged(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        self.wrong_algorithms(&mut all);
        self.wrong_headers(&mut all);
        self.wrong_claims(&mut all);
        self.wrong_texts(&mut all);
        all
    }

    fn wrong_algorithms(&self, all: &mut Vec<(String, String)>) {
        let claims = claims("ada");
        for name in ["none", "None", "NONE", "nOnE", "", "rs256", "RS256 ", "HS256\u{0}"] {
            let token = self.token(&header(name, "rsa"), &claims, By::Rsa);
            all.push((format!("alg {name:?}, signed"), token.clone()));
            let bare = token.rsplit_once('.').unwrap().0;
            all.push((format!("alg {name:?}, not signed"), format!("{bare}.")));
        }
        for value in [json!(null), json!(256), json!(["RS256"]), json!({ "alg": "RS256" })] {
            let header = json!({ "alg": value, "kid": "rsa" });
            all.push((format!("alg {value}"), self.token(&header, &claims, By::Rsa)));
        }
        all.push(("no alg".to_owned(), self.token(&json!({ "kid": "rsa" }), &claims, By::Rsa)));
        for by in [By::SecretPem, By::SecretModulus, By::Nothing] {
            for name in ["HS256", "HS384", "HS512", "RS256"] {
                for id in ["rsa", "secret"] {
                    let token = self.token(&header(name, id), &claims, by);
                    all.push((format!("{name} of {id} by {by:?}"), token));
                }
            }
        }
        for (name, id, by) in [
            ("RS384", "rsa", By::Rsa),
            ("RS512", "rsa", By::Rsa),
            ("PS256", "rsa", By::Rsa),
            ("ES384", "p256", By::P256),
            ("ES256K", "p256", By::P256),
            ("ES256", "rsa", By::Rsa),
            ("ES256", "ed", By::Ed),
            ("EdDSA", "p256", By::P256),
            ("EdDSA", "rsa", By::Ed),
            ("EdDSA", "other", By::Ed),
            ("EdDSA", "ed", By::Stranger),
        ] {
            let what = format!("{name} of {id} by {by:?}");
            all.push((what, self.token(&header(name, id), &claims, by)));
        }
    }

    fn wrong_headers(&self, all: &mut Vec<(String, String)>) {
        let claims = claims("ada");
        let strange = self.strange_jwk("ed");
        for (name, value) in [
            ("jwk", strange.clone()),
            ("jku", json!("https://evil.example/keys")),
            ("jku", json!("https://login.example@evil.example/keys")),
            ("x5u", json!("https://evil.example/chain.pem")),
            ("x5c", json!(["MIIB"])),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("crit", json!(["b64"])),
            ("b64", json!(false)),
            ("zip", json!("DEF")),
            ("enc", json!("A256GCM")),
            ("typ", json!("logout+jwt")),
            ("typ", json!("dpop+jwt")),
            ("typ", json!(7)),
            ("kid", json!(7)),
            ("kid", json!(null)),
            ("kid", json!(["ed"])),
            ("kid", json!("")),
            ("kid", json!("ED")),
            ("kid", json!("../../../../dev/null")),
            ("kid", json!("/proc/self/environ")),
            ("kid", json!("ed' UNION SELECT 'x")),
            ("kid", json!("ed\u{0}x")),
            ("kid", json!("https://evil.example/keys")),
        ] {
            for by in [By::Ed, By::Stranger, By::Nothing] {
                let mut header = header("EdDSA", "ed");
                header[name] = value.clone();
                let token = self.token(&header, &claims, by);
                all.push((format!("{name} {value} by {by:?}"), token));
            }
        }
        let nameless = json!({ "alg": "EdDSA" });
        all.push(("no kid, two keys".to_owned(), self.token(&nameless, &claims, By::Ed)));
        for header in ["[]", "\"EdDSA\"", "null", "", "{", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}x"] {
            let token = self.of_texts(header, &claims.to_string(), By::Ed);
            all.push((format!("header {header}"), token));
        }
        for header in [
            "{\"alg\":\"none\",\"alg\":\"EdDSA\",\"kid\":\"ed\"}",
            "{\"alg\":\"EdDSA\",\"kid\":\"other\",\"kid\":\"ed\"}",
            "{\"alg\":\"none\",\"a\\u006cg\":\"EdDSA\",\"kid\":\"ed\"}",
        ] {
            let token = self.of_texts(header, &claims.to_string(), By::Ed);
            all.push((format!("header {header}"), token));
        }
    }

    fn wrong_claims(&self, all: &mut Vec<(String, String)>) {
        let now = now();
        let long = "a".repeat(65);
        for (name, value) in [
            ("exp", json!(null)),
            ("exp", json!(now - 61)),
            ("exp", json!((now + 600).to_string())),
            ("exp", json!(true)),
            ("exp", json!([now + 600])),
            ("exp", json!(-1)),
            ("exp", json!(0)),
            ("nbf", json!(now + 120)),
            ("nbf", json!("soon")),
            ("nbf", json!(-1)),
            ("iss", json!(null)),
            ("iss", json!("")),
            ("iss", json!("https://login.example.evil.example")),
            ("iss", json!("https://login.example/")),
            ("iss", json!("https://login.exampl")),
            ("iss", json!("https://LOGIN.example")),
            ("iss", json!([ISSUER])),
            ("aud", json!(null)),
            ("aud", json!("comf")),
            ("aud", json!("comfy2")),
            ("aud", json!("other comfy")),
            ("aud", json!([])),
            ("aud", json!(["other", "comfy2"])),
            ("aud", json!([[AUDIENCE]])),
            ("aud", json!([AUDIENCE, 7])),
            ("aud", json!({ AUDIENCE: true })),
            ("sub", json!(null)),
            ("sub", json!(7)),
            ("sub", json!(["ada"])),
            ("sub", json!("")),
            ("sub", json!(" ada")),
            ("sub", json!("ada\n")),
            ("sub", json!("ada\u{0}")),
            ("sub", json!("\u{1}bob\u{1}x")),
            ("sub", json!("ada/../bob")),
            ("sub", json!("\u{430}da")),
            ("sub", json!(long)),
        ] {
            let token = self.good(&claims_with(&[(name, value.clone())]));
            all.push((format!("{name} {value}"), token));
        }
        let twice = |more: &str| {
            let text = claims("ada").to_string();
            format!("{}{more}}}", text.trim_end_matches('}'))
        };
        for more in [
            ",\"sub\":\"eve\"".to_owned(),
            ",\"s\\u0075b\":\"eve\"".to_owned(),
            format!(",\"exp\":{}", now + 9_999),
            ",\"aud\":\"comfy\"".to_owned(),
        ] {
            let token = self.of_texts(&header("EdDSA", "ed").to_string(), &twice(&more), By::Ed);
            all.push((format!("twice {more}"), token));
        }
        for text in ["", "[]", "null", "7", "\"ada\"", "{", "{}", "{\"sub\":\"ada\"}\u{0}"] {
            let token = self.of_texts(&header("EdDSA", "ed").to_string(), text, By::Ed);
            all.push((format!("claims {text:?}"), token));
        }
    }

    fn wrong_texts(&self, all: &mut Vec<(String, String)>) {
        let good = self.good(&claims("ada"));
        let [head, body, signature] =
            <[&str; 3]>::try_from(good.split('.').collect::<Vec<_>>()).unwrap();
        let eve = encoded(claims("eve").to_string());
        // The last letter of 64 bytes has four bits that mean nothing.
        let last = signature.chars().last().unwrap();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = letters.chars().nth(letters.find(last).unwrap() + 1).unwrap();
        let respelled = format!("{}{next}", &signature[..signature.len() - 1]);
        for (what, token) in [
            ("other claims", format!("{head}.{eve}.{signature}")),
            ("no signature", format!("{head}.{body}.")),
            ("two parts", format!("{head}.{body}")),
            ("one part", head.to_owned()),
            ("cut", good[..good.len() - 1].to_owned()),
            ("half a signature", format!("{head}.{body}.{}", &signature[..43])),
            ("a dot behind", format!("{good}.")),
            ("a dot before", format!(".{good}")),
            ("a part before", format!("x.{good}")),
            ("five parts", format!("{head}.a.{body}.b.{signature}")),
            ("two dots", format!("{head}..{signature}")),
            ("dots", "..".to_owned()),
            ("padding", format!("{head}.{body}.{signature}==")),
            ("another spelling of the signature", format!("{head}.{body}.{respelled}")),
            ("zeros", format!("{head}.{body}.{}", encoded([0; 64]))),
            ("quotes", format!("\"{good}\"")),
            ("a blank inside", format!("{head}. {body}.{signature}")),
            ("twice", format!("{good},{good}")),
        ] {
            all.push((what.to_owned(), token));
        }
        let zeros = self.token(&header("ES256", "p256"), &claims("ada"), By::P256);
        let unsigned = zeros.rsplit_once('.').unwrap().0;
        all.push(("ES256 of zeros".to_owned(), format!("{unsigned}.{}", encoded([0; 64]))));
        let filled = claims_with(&[("filler", json!("x".repeat(20_000)))]);
        all.push(("huge".to_owned(), self.good(&filled)));
    }
}
