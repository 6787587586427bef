//! Public keys that sign tokens: as a JWK Set (RFC 7517) or as PEM. What is no key of ours is left
//! out, as that RFC says (section 5): servers publish keys for other matters too.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use smallvec::SmallVec;
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::Fault;

/// How many keys are tried that have no name and are of one kind: an old one and a new one.
const NAMELESS_MAX: usize = 4;

/// The keys that a token may mean: one, or some that have no name. Never none.
pub(super) type Meant<'k> = SmallVec<[&'k Arc<Key>; NAMELESS_MAX]>;

/// More keys than any server has.
const KEYS_MAX: usize = 100;

/// How a token may be signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

impl Algorithm {
    /// By its name (RFC 7518 section 3.1, RFC 8037 section 3.1). All others are none, and those
    /// with a secret that both sides know too.
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "RS256" => Some(Self::Rs256),
            "ES256" => Some(Self::Es256),
            "EdDSA" => Some(Self::EdDsa),
            _ => None,
        }
    }
}

/// A public key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Key {
    /// Its `kid`. Those of PEM files have none.
    id: Option<Box<str>>,
    material: Material,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Material {
    /// Both without zeros before them.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// A point that is not compressed.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Material {
    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa { .. } => Algorithm::Rs256,
            Self::P256(_) => Algorithm::Es256,
            Self::Ed25519(_) => Algorithm::EdDsa,
        }
    }

    /// Shorter ones can be broken (RFC 7518 section 3.3).
    fn rsa(n: &[u8], e: &[u8]) -> Option<Self> {
        const BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
        let trimmed = |number: &[u8]| {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number[zeros..].to_vec()
        };
        let (n, e) = (trimmed(n), trimmed(e));
        (BYTES.contains(&n.len()) && !e.is_empty()).then_some(Self::Rsa { n, e })
    }

    fn p256(point: Vec<u8>) -> Option<Self> {
        (point.len() == 65 && point[0] == 4).then_some(Self::P256(point))
    }

    fn ed25519(point: Vec<u8>) -> Option<Self> {
        (point.len() == 32).then_some(Self::Ed25519(point))
    }
}

impl Key {
    /// True if this signature is the key's. Of a key that has one kind there is one way to tell.
    pub(super) fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
            }
            Material::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(text, signature)
            }
            Material::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(text, signature)
            }
        };
        verified.is_ok()
    }

    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.material.algorithm() == algorithm
    }

    /// True for a key whose owner has published what he has to keep (RFC 7518 section 6).
    fn is_private(jwk: &Value) -> bool {
        ["d", "p", "q"].into_iter().any(|part| jwk.get(part).is_some())
    }

    /// A key of a JWK Set, if it is one that signs as we know it. One that everybody can sign with
    /// is none.
    fn of_jwk(jwk: &Value) -> Option<Self> {
        if Self::is_private(jwk) {
            return None;
        }
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::rsa(&bytes("n")?, &bytes("e")?),
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                let point = [&[4][..], &x, &y].concat();
                Material::p256(point).filter(|_| x.len() == 32)
            }
            ("OKP", Some("Ed25519")) => Material::ed25519(bytes("x")?),
            _ => None,
        }?;
        let is_meant = |algorithm: &Value| {
            let named = algorithm.as_str();
            let is_curve = named == Some("Ed25519") && material.algorithm() == Algorithm::EdDsa;
            is_curve || named.and_then(Algorithm::of) == Some(material.algorithm())
        };
        let verifies = |uses: &Value| {
            uses.as_array().is_some_and(|all| all.iter().any(|it| it.as_str() == Some("verify")))
        };
        let is_ours = jwk.get("alg").is_none_or(is_meant)
            && jwk.get("use").is_none_or(|it| it.as_str() == Some("sig"))
            && jwk.get("key_ops").is_none_or(verifies);
        let id = match jwk.get("kid") {
            None => None,
            Some(id) => Some(id.as_str()?.into()),
        };
        is_ours.then_some(Self { id, material })
    }

    fn of_der(der: &[u8]) -> Option<Self> {
        const ED25519_OID: &str = "1.3.101.112";
        const P256_OID: &str = "1.2.840.10045.3.1.7";
        let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        let bits = || info.subject_public_key.data.to_vec();
        if info.algorithm.algorithm.to_id_string() == ED25519_OID {
            return Some(Self { id: None, material: Material::ed25519(bits())? });
        }
        let material = match info.parsed().ok()? {
            PublicKey::RSA(key) => Material::rsa(key.modulus, key.exponent),
            PublicKey::EC(_) => {
                let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
                Material::p256(bits()).filter(|_| curve.to_id_string() == P256_OID)
            }
            PublicKey::DSA(_)
            | PublicKey::GostR3410(_)
            | PublicKey::GostR3410_2012(_)
            | PublicKey::Unknown(_) => None,
        }?;
        Some(Self { id: None, material })
    }
}

const HAS_PRIVATE: &str = "has a private key in it: only public ones belong here";

/// The keys that may sign tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeySet {
    keys: Vec<Arc<Key>>,
}

impl KeySet {
    /// Reads a JWK Set or PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Who has that can be anybody, and it has no business here.
        if text.contains("PRIVATE KEY-----") {
            return Err(HAS_PRIVATE.to_owned());
        }
        match text.trim_start().starts_with('{') {
            true => {
                let set: Value = serde_json::from_str(text).unwrap_or_default();
                let mut keys = set.get("keys").and_then(Value::as_array).into_iter().flatten();
                if keys.any(Key::is_private) {
                    return Err(HAS_PRIVATE.to_owned());
                }
                Self::of_jwks(text.as_bytes())
            }
            false => Self::of_pem(text),
        }
    }

    /// # Errors
    /// It is no JWK Set, or none of its keys is one of ours.
    pub fn of_jwks(text: &[u8]) -> Result<Self, String> {
        Self::published(text).and_then(Self::not_empty)
    }

    /// What a server publishes. That none of its keys is one of ours is an answer too: it may have
    /// taken back the one that it had.
    ///
    /// # Errors
    /// It is no JWK Set.
    pub fn published(text: &[u8]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(text).map_err(|bad| format!("is no JSON: {bad}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("is no JWK Set: it has no list `keys`")?;
        Self::of(keys.iter().filter_map(Key::of_jwk))
    }

    fn of_pem(text: &str) -> Result<Self, String> {
        let mut keys = Vec::new();
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
            let der = der.map_err(|bad| format!("is no PEM: {bad}"))?;
            let key = Key::of_der(der.as_ref());
            keys.push(
                key.ok_or("has a key that is none of RSA (2048 bits or more), P-256 and Ed25519")?,
            );
        }
        Self::of(keys).and_then(Self::not_empty)
    }

    fn not_empty(self) -> Result<Self, String> {
        match self.is_empty() {
            true => {
                Err("has no public key of RSA (2048 bits or more), P-256 or Ed25519".to_owned())
            }
            false => Ok(self),
        }
    }

    /// A key that is there twice counts once.
    fn of(all: impl IntoIterator<Item = Key>) -> Result<Self, String> {
        let mut keys: Vec<Arc<Key>> = Vec::new();
        for key in all {
            if KEYS_MAX < keys.len() {
                break;
            }
            if !keys.iter().any(|it| **it == key) {
                keys.push(Arc::new(key));
            }
        }
        if KEYS_MAX < keys.len() {
            return Err(format!("has more than {KEYS_MAX} keys"));
        }
        let is_nameless = |key: &Arc<Key>, kind| key.id.is_none() && key.is_for(kind);
        let kinds = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
        let most = kinds.map(|kind| keys.iter().filter(|key| is_nameless(key, kind)).count());
        if most.into_iter().any(|count| NAMELESS_MAX < count) {
            let what = format!("has more than {NAMELESS_MAX} keys of one kind without a `kid`");
            return Err(format!("{what}: a token does not say which one it means"));
        }
        Ok(Self { keys })
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// True while a key is among them.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.keys.iter().any(|it| std::ptr::eq(it.as_ref(), key) || **it == *key)
    }

    /// The key that a token with this `kid` means. A key without a name is meant by every name
    /// that no other has. Only of such keys may there be several: files of PEM name none.
    pub(super) fn find(&self, algorithm: Algorithm, id: Option<&str>) -> Result<Meant<'_>, Fault> {
        let fits = |key: &&Arc<Key>| key.is_for(algorithm);
        let Some(id) = id else { return only(self.keys.iter().filter(fits)) };
        let named = || self.keys.iter().filter(|key| key.id.as_deref() == Some(id));
        if named().next().is_some() {
            return match only(named().filter(fits)) {
                Err(Fault::UnknownKey) => Err(Fault::Algorithm),
                found => found,
            };
        }
        only(self.keys.iter().filter(|key| key.id.is_none()).filter(fits))
    }
}

fn only<'k>(keys: impl Iterator<Item = &'k Arc<Key>>) -> Result<Meant<'k>, Fault> {
    let keys: Meant<'k> = keys.collect();
    match keys.len() {
        0 => Err(Fault::UnknownKey),
        2.. if keys.iter().any(|key| key.id.is_some()) => Err(Fault::AmbiguousKey),
        1.. => Ok(keys),
    }
}
