//! The messages of OpenDSR 2.0 (formerly OpenGDPR), as the HTTP API reads and writes them.
//!
//! Two deviations, both for the same reason: an identifier must not leave memory.
//! `identity_format` is `raw` only, because a plain hash cannot be turned into a keyed
//! pseudonym; and `encoded_request` holds the request with its identity values blanked.

use ameles_core::{SubjectKind, Timestamp};
use ameles_pseudonym::RawIdentifier;
use ameles_schemas::Contract;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

/// The version of the protocol that is spoken.
pub const API_VERSION: &str = "2.0";
/// The one kind of request that is served.
pub const REQUEST_TYPE: &str = "erasure";
/// The one format of identity values that is read.
pub const IDENTITY_FORMAT: &str = "raw";
/// The most identities that one request may name.
pub const IDENTITIES_MAX: usize = 100;

/// `POST /v1/requests`. Other fields of the protocol are read over and not kept.
#[derive(Debug, Deserialize)]
pub struct SubjectRequest {
    /// Such as `gdpr` or `ccpa`.
    pub regulation: String,
    /// The controller's id of the request, a UUID: kept as its reference.
    pub subject_request_id: String,
    /// [`REQUEST_TYPE`].
    pub subject_request_type: String,
    /// When the subject asked: the deadline runs from then.
    pub submitted_time: Timestamp,
    /// Whom it names.
    pub subject_identities: Vec<SubjectIdentity>,
    /// [`API_VERSION`] where given.
    #[serde(default)]
    pub api_version: Option<String>,
}

/// One identifier of the subject.
#[derive(Debug, Deserialize)]
pub struct SubjectIdentity {
    /// `device_id`, `user_id`, `controller_customer_id`, or the field's name in the contract.
    pub identity_type: String,
    /// The identifier; never stored, shown or echoed.
    #[serde(deserialize_with = "raw_identifier")]
    pub identity_value: RawIdentifier,
    /// [`IDENTITY_FORMAT`].
    pub identity_format: String,
}

fn raw_identifier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RawIdentifier, D::Error> {
    String::deserialize(deserializer).map(RawIdentifier::new)
}

/// Why a request is refused; never with a value out of it that could be an identifier.
#[derive(Debug, thiserror::Error)]
pub enum OpendsrError {
    /// Not the JSON of a request.
    #[error(
        "the body is not an OpenDSR request: see line {line}, column {column}; it needs regulation, subject_request_id, subject_request_type, submitted_time and subject_identities, each with identity_type, identity_value and identity_format"
    )]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A field's value is not served.
    #[error("{field} {rule}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What would be right.
        rule: String,
    },
}

impl OpendsrError {
    fn field(field: &'static str, rule: impl Into<String>) -> Self {
        Self::Field { field, rule: rule.into() }
    }

    /// The error's body as the protocol shapes it.
    pub fn body(&self) -> ErrorBody {
        ErrorBody::new(400, "Validation", &self.to_string())
    }
}

/// Reads a request's body and checks all that needs no home.
///
/// # Errors
/// When it is no OpenDSR request for an erasure of the subjects that `contract` has.
pub fn parse_request(body: &[u8], contract: &Contract) -> Result<SubjectRequest, OpendsrError> {
    // The parser's own message may quote a value: only its place is passed on.
    let request: SubjectRequest =
        serde_json::from_slice(body).map_err(|error| OpendsrError::Json { line: error.line(), column: error.column() })?;
    if request.api_version.as_deref().is_some_and(|version| version != API_VERSION) {
        return Err(OpendsrError::field("api_version", format!("must be {API_VERSION}")));
    }
    if request.subject_request_type != REQUEST_TYPE {
        return Err(OpendsrError::field("subject_request_type", format!("must be {REQUEST_TYPE}: nothing else is served")));
    }
    if request.subject_identities.is_empty() || request.subject_identities.len() > IDENTITIES_MAX {
        return Err(OpendsrError::field("subject_identities", format!("must name 1 to {IDENTITIES_MAX} identities")));
    }
    for identity in &request.subject_identities {
        if identity.identity_format != IDENTITY_FORMAT {
            return Err(OpendsrError::field(
                "identity_format",
                format!("must be {IDENTITY_FORMAT}: a hash cannot become a keyed pseudonym"),
            ));
        }
        if kind_of(&identity.identity_type, contract).is_none() {
            return Err(OpendsrError::field("identity_type", format!("must be one of {}", identity_types(contract).join(", "))));
        }
    }
    Ok(request)
}

/// Which kind of subject an identity type names under `contract`.
pub fn kind_of(identity_type: &str, contract: &Contract) -> Option<SubjectKind> {
    let roles = contract.roles();
    let named = |index: usize| contract.fields().get(index).is_some_and(|field| field.name == identity_type);
    if matches!(identity_type, "device_id" | "device") || named(roles.device) {
        return Some(SubjectKind::Device);
    }
    let user = roles.user?;
    (matches!(identity_type, "user_id" | "user" | "controller_customer_id") || named(user)).then_some(SubjectKind::User)
}

/// The identity types that are read under `contract`, for discovery and for errors.
pub fn identity_types(contract: &Contract) -> Vec<String> {
    let roles = contract.roles();
    let name = |index: usize| contract.fields().get(index).map(|field| field.name.clone());
    let mut types = vec!["device_id".to_owned()];
    types.extend(name(roles.device));
    if let Some(user) = roles.user {
        types.extend(["user_id".to_owned(), "controller_customer_id".to_owned()]);
        types.extend(name(user));
    }
    let mut seen = std::collections::BTreeSet::new();
    types.retain(|name| seen.insert(name.clone()));
    types
}

/// `GET /v1/discovery`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Discovery {
    /// [`API_VERSION`].
    pub api_version: String,
    /// What identities are read.
    pub supported_identities: Vec<SupportedIdentity>,
    /// What requests are served.
    pub supported_subject_request_types: Vec<String>,
    /// The key that certificates are signed with, as base64 (instead of the protocol's X.509 URL).
    pub processor_public_key: String,
}

/// One line of [`Discovery`].
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct SupportedIdentity {
    /// Its type.
    pub identity_type: String,
    /// [`IDENTITY_FORMAT`].
    pub identity_format: String,
}

impl Discovery {
    /// What is served under `contract`, signed by `public_key`.
    pub fn new(contract: &Contract, public_key: &[u8; 32]) -> Self {
        let identity = |identity_type| SupportedIdentity { identity_type, identity_format: IDENTITY_FORMAT.to_owned() };
        Self {
            api_version: API_VERSION.to_owned(),
            supported_identities: identity_types(contract).into_iter().map(identity).collect(),
            supported_subject_request_types: vec![REQUEST_TYPE.to_owned()],
            processor_public_key: STANDARD.encode(public_key),
        }
    }
}

/// The answer to `POST /v1/requests` (201).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct RequestReply {
    /// Who sent it: the token's name.
    pub controller_id: String,
    /// By when it is due.
    pub expected_completion_time: Timestamp,
    /// When it was received.
    pub received_time: Timestamp,
    /// The request as base64, with its identity values blanked.
    pub encoded_request: String,
    /// The controller's id of it.
    pub subject_request_id: String,
    /// Our id of it; `GET /v1/requests/{id}` takes either.
    pub request_id: String,
    /// [`API_VERSION`].
    pub api_version: String,
}

/// The answer to `GET /v1/requests/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct StatusReply {
    /// Who sent it: the actor on the ledger.
    pub controller_id: String,
    /// By when it is due.
    pub expected_completion_time: Timestamp,
    /// The controller's id of it, or ours where it gave none.
    pub subject_request_id: String,
    /// Our id of it.
    pub request_id: String,
    /// `pending`, `in_progress`, `completed` or `cancelled`.
    pub request_status: String,
    /// Where the certificate is, once completed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub results_url: Option<String>,
    /// [`API_VERSION`].
    pub api_version: String,
}

/// The answer to `DELETE /v1/requests/{id}` (202).
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct CancellationReply {
    /// Who cancelled it: the token's name.
    pub controller_id: String,
    /// The controller's id of it, or ours where it gave none.
    pub subject_request_id: String,
    /// When it was cancelled.
    pub received_time: Timestamp,
    /// [`API_VERSION`].
    pub api_version: String,
}

/// The protocol's body of an error.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ErrorBody {
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ErrorDetail {
    /// The HTTP status.
    pub code: u16,
    /// What went wrong and what would be right.
    pub message: String,
    /// The same with its domain.
    pub errors: Vec<ErrorItem>,
}

/// One cause.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ErrorItem {
    /// `Validation`, `NotFound`, `State`.
    pub domain: String,
    /// The domain again, as the protocol's examples have it.
    pub reason: String,
    /// What went wrong.
    pub message: String,
}

impl ErrorBody {
    /// An error of one cause.
    pub fn new(code: u16, domain: &str, message: &str) -> Self {
        let item = ErrorItem { domain: domain.to_owned(), reason: domain.to_owned(), message: message.to_owned() };
        Self { error: ErrorDetail { code, message: message.to_owned(), errors: vec![item] } }
    }
}

/// The request as base64 with blanked identity values.
pub(crate) fn encode_blanked(request: &SubjectRequest) -> String {
    let identities: Vec<_> = request
        .subject_identities
        .iter()
        .map(|identity| json!({"identity_type": identity.identity_type, "identity_value": "", "identity_format": identity.identity_format}))
        .collect();
    let blanked = json!({
        "regulation": request.regulation,
        "subject_request_id": request.subject_request_id,
        "subject_request_type": request.subject_request_type,
        "submitted_time": request.submitted_time,
        "subject_identities": identities,
        "api_version": API_VERSION,
    });
    STANDARD.encode(blanked.to_string())
}
