//! What every way in shares: contract, policy, keys, ledger, warehouse, clock.

use std::sync::Arc;

use ameles_core::{Limits, SharedClock, SharedRandom};
use ameles_ledger::Ledger;
use ameles_pseudonym::{DomainHasher, Keyring};
use ameles_schemas::{Contract, Policy, Transform};
use ameles_store::Warehouse;

use crate::IngestError;
use crate::admission::{Admission, Identifier};
use crate::batch::{ColumnPlan, ColumnSet};
use crate::decode::Decoder;

/// The keyring's purpose for names of sources.
const ALIAS_PURPOSE: &str = "alias";
/// The domain of event ids where the contract names none.
const EVENT_DOMAIN: &str = "event";

/// What an [`IngestEnv`] is made of.
pub struct EnvParts<'a> {
    /// The contract that events are held to.
    pub contract: Arc<Contract>,
    /// The regimes.
    pub policy: Arc<Policy>,
    /// Where the current hashers come from; not kept.
    pub keyring: &'a Keyring,
    /// Suppressions and consents.
    pub ledger: Ledger,
    /// Where events go.
    pub warehouse: Warehouse,
    /// The time of arrival.
    pub clock: SharedClock,
    /// Ids of leases.
    pub random: SharedRandom,
    /// Bounds.
    pub limits: Limits,
    /// The smallest group: an undeclared field's name is shown from so many devices on.
    pub k: u32,
}

/// Everything that an ingest needs, for all sources of one process. Holds keys: no `Debug`.
pub struct IngestEnv {
    pub(crate) contract: Arc<Contract>,
    pub(crate) admission: Arc<Admission>,
    /// Keyed hashes of sources' contents.
    pub(crate) source_hasher: DomainHasher,
    pub(crate) ledger: Ledger,
    pub(crate) warehouse: Warehouse,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) limits: Limits,
    pub(crate) k: u32,
}

impl IngestEnv {
    /// Prepares hashers and the decode plan.
    ///
    /// # Errors
    /// When the keyring lacks a domain that the contract names.
    pub fn new(parts: EnvParts<'_>) -> Result<Self, IngestError> {
        let EnvParts { contract, policy, keyring, ledger, warehouse, clock, random, limits, k } = parts;
        let hasher = |domain: &str| keyring.hasher(domain).map_err(IngestError::keyring);
        let identifier = |at: usize, otherwise: Option<&str>| -> Result<Option<Identifier>, IngestError> {
            let field = &contract.fields()[at];
            let domain = match &field.transform {
                Transform::Pseudonymize { domain } => Some(domain.as_str()),
                _ => otherwise,
            };
            let Some(domain) = domain else { return Ok(None) };
            let epochs = keyring.hashers_all_epochs(domain).map_err(IngestError::keyring)?;
            Ok(Some(Identifier::new(hasher(domain)?, field.fold_case, limits.identifier_chars_max).with_epochs(epochs)))
        };
        let roles = contract.roles();
        let device = identifier(roles.device, None)?
            .ok_or_else(|| IngestError::Setup("the data contract drops the device: there would be nothing to count".to_owned()))?;
        let user = roles.user.map(|at| identifier(at, None)).transpose()?.flatten();
        let event_id = roles.event_id.map(|at| identifier(at, Some(EVENT_DOMAIN))).transpose()?.flatten();
        let plans = ColumnPlan::of_contract(&contract, limits.identifier_chars_max, hasher)?;
        let may_refuse = (0..plans.len()).filter(|at| plans[*at].may_refuse()).collect();
        let columns = Arc::new(ColumnSet::new(roles.event_type, plans));
        let alias = keyring.secret(ALIAS_PURPOSE).map_err(IngestError::keyring)?;
        let decoder = Decoder::new(Arc::clone(&contract), limits.line_bytes_max);
        let admission = Arc::new(Admission { decoder, policy, device, user, event_id, columns, may_refuse });
        Ok(Self { contract, admission, source_hasher: DomainHasher::new(&alias), ledger, warehouse, clock, random, limits, k })
    }

    /// The contract that events are held to.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }
    /// Bounds on events, bodies and batches.
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }
    /// Where events go.
    pub const fn warehouse(&self) -> &Warehouse {
        &self.warehouse
    }
}
