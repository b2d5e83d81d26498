//! Signing a certificate, and checking one offline with the public key alone.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::Serialize;
use serde_json::{Value, json};

use crate::canonical::{CanonicalError, canonical_bytes, parse_strict};
use crate::certificate::{Certificate, FORMAT_VERSION};

const ALGORITHM: &str = "Ed25519";
/// What precedes the 32 key bytes in an Ed25519 `SubjectPublicKeyInfo` (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A certificate or a key that cannot be read. A certificate that was read but is
/// not genuine is a [`CertificateVerdict`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Not JSON, or an object with a repeated key.
    #[error("the certificate is not one JSON document: {0}")]
    Json(#[source] serde_json::Error),
    /// The document has another shape.
    #[error(
        "the certificate's {part} is missing or has another shape; expected {{\"certificate\":{{…}},\"signature\":{{\"algorithm\",\"public_key\",\"value\"}}}}"
    )]
    Shape {
        /// Which part.
        part: &'static str,
    },
    /// No canonical form.
    #[error(transparent)]
    Canonical(#[from] CanonicalError),
    /// A key in none of the forms that are read.
    #[error("this is no Ed25519 public key; give its 32 bytes as base64 or hex, or a PEM file of it")]
    PublicKey,
    /// The keyring's private key cannot be used.
    #[error("the keyring's signing key cannot be used; restore the keyring from its backup")]
    SigningKey,
}

/// Whether a certificate is what the holder of the key signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CertificateVerdict {
    /// The signature is that of the given key over exactly these contents.
    pub genuine: bool,
    /// The request that the certificate names.
    pub request: Option<String>,
    /// Why it is not genuine, or what a genuine one leaves open.
    pub problems: Vec<String>,
    /// The contents, when genuine.
    pub certificate: Option<Certificate>,
}

/// Signs certificates with one key.
pub(crate) struct Signer {
    pair: Ed25519KeyPair,
    public_key: String,
}

impl Signer {
    /// Reads the Ed25519 key in `pkcs8`.
    pub(crate) fn new(pkcs8: &[u8]) -> Result<Self, CertificateError> {
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| CertificateError::SigningKey)?;
        let public_key = STANDARD.encode(pair.public_key().as_ref());
        Ok(Self { pair, public_key })
    }

    /// The signed document as one line of JSON, keys in canonical order.
    pub(crate) fn sign(&self, certificate: &Certificate) -> Result<String, CertificateError> {
        self.sign_contents(&canonical(certificate)?)
    }

    /// The same of a certificate's canonical bytes.
    pub(crate) fn sign_contents(&self, contents: &[u8]) -> Result<String, CertificateError> {
        let value = STANDARD.encode(self.pair.sign(contents).as_ref());
        let signature = canonical(&json!({"algorithm": ALGORITHM, "public_key": self.public_key, "value": value}))?;
        let mut document = Vec::with_capacity(contents.len() + signature.len() + 32);
        document.extend_from_slice(b"{\"certificate\":");
        document.extend_from_slice(contents);
        document.extend_from_slice(b",\"signature\":");
        document.extend_from_slice(&signature);
        document.push(b'}');
        String::from_utf8(document).map_err(|_| CertificateError::Shape { part: "document" })
    }
}

/// The canonical bytes of what `value` is in JSON.
pub(crate) fn canonical(value: &impl Serialize) -> Result<Vec<u8>, CertificateError> {
    Ok(canonical_bytes(&serde_json::to_value(value).map_err(CertificateError::Json)?)?)
}

/// Signs `certificate` with the Ed25519 key in `pkcs8`, and gives the document as one line of JSON.
///
/// # Errors
/// When the key cannot be used.
pub fn sign_certificate(certificate: &Certificate, pkcs8: &[u8]) -> Result<String, CertificateError> {
    Signer::new(pkcs8)?.sign(certificate)
}

/// Checks `json` against `public_key`, which may be the key's 32 bytes, base64, hex,
/// or a PEM or DER file of it. Needs neither home nor network.
///
/// # Errors
/// When the document or the key cannot be read at all.
pub fn check_certificate(json: &str, public_key: &[u8]) -> Result<CertificateVerdict, CertificateError> {
    let key = parse_public_key(public_key)?;
    let document = parse_strict(json).map_err(CertificateError::Json)?;
    let outer = document.as_object().ok_or(CertificateError::Shape { part: "document" })?;
    let contents = outer.get("certificate").filter(|value| value.is_object()).ok_or(CertificateError::Shape { part: "contents" })?;
    let signature = outer.get("signature").and_then(Value::as_object).ok_or(CertificateError::Shape { part: "signature" })?;
    let field = |name: &str| signature.get(name).and_then(Value::as_str).ok_or(CertificateError::Shape { part: "signature" });
    let (algorithm, stated_key, value) = (field("algorithm")?, field("public_key")?, field("value")?);

    let mut problems = Vec::new();
    if outer.len() != 2 || signature.len() != 3 {
        problems.push("the document holds fields that the signature does not cover".to_owned());
    }
    if algorithm != ALGORITHM {
        problems.push(format!("the signature's algorithm is not {ALGORITHM}"));
    }
    if STANDARD.decode(stated_key).ok().as_deref() != Some(&key[..]) {
        problems.push("the document names another public key than the one given".to_owned());
    }
    let bytes = canonical_bytes(contents)?;
    let signed = STANDARD.decode(value).is_ok_and(|value| UnparsedPublicKey::new(&ED25519, &key).verify(&bytes, &value).is_ok());
    if !signed {
        problems.push(
            "the signature is not that of the given key over these contents: they were changed, or another key signed them".to_owned(),
        );
    }
    let genuine = problems.is_empty();
    let request = contents.pointer("/request/id").and_then(Value::as_str).map(str::to_owned);
    if !genuine {
        return Ok(CertificateVerdict { genuine, request, problems, certificate: None });
    }
    let version = contents.get("format_version").and_then(Value::as_u64);
    if version != Some(u64::from(FORMAT_VERSION)) {
        problems.push(format!("the signature is genuine, but the format is not version {FORMAT_VERSION}: check it with a later ameles"));
        return Ok(CertificateVerdict { genuine, request, problems, certificate: None });
    }
    let certificate: Certificate = serde_json::from_value(contents.clone()).map_err(|_| CertificateError::Shape { part: "contents" })?;
    if !certificate.verification.residues.is_empty() {
        problems.push("the certificate itself names residues that were found".to_owned());
    }
    Ok(CertificateVerdict { genuine, request, problems, certificate: Some(certificate) })
}

/// Reads an Ed25519 public key from its 32 bytes, hex, base64 (either alphabet), or a
/// PEM or DER file.
///
/// # Errors
/// When it is none of these.
pub fn parse_public_key(input: &[u8]) -> Result<[u8; 32], CertificateError> {
    if let Ok(key) = <[u8; 32]>::try_from(input) {
        return Ok(key);
    }
    if let Some(key) = from_der(input) {
        return Ok(key);
    }
    let text = std::str::from_utf8(input).map_err(|_| CertificateError::PublicKey)?;
    let body: String = text.lines().map(str::trim).filter(|line| !line.starts_with("-----")).collect();
    if let Some(key) = hex::decode(&body).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
        return Ok(key);
    }
    [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| {
            let bytes = engine.decode(&body).ok()?;
            <[u8; 32]>::try_from(&bytes[..]).ok().or_else(|| from_der(&bytes))
        })
        .ok_or(CertificateError::PublicKey)
}

fn from_der(bytes: &[u8]) -> Option<[u8; 32]> {
    bytes.strip_prefix(&SPKI_PREFIX).and_then(|key| <[u8; 32]>::try_from(key).ok())
}
