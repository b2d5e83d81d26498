//! Data contracts, table schemas and policies: what Ameles knows about data
//! before it has seen any.
//!
//! A [`Contract`] says what an event looks like, how private each field is and
//! what is done to it before it is stored. [`TableSchemas`] follow from the
//! contract and from nothing else. A [`Policy`] says which country's events are
//! admitted on which terms. This crate depends on nothing else of ours and does
//! no I/O: the default contract and policy are embedded.

mod contract;
mod nearest;
mod policy;
mod tables;
mod transform;

pub use contract::{Checks, Contract, ContractError, ContractFault, Field, FieldKind, PrivacyClass, Role, Roles, Rule, Transform};
pub use policy::{Collection, OnWithdrawal, Policy, PolicyError, PolicyFault, Regime};
pub use tables::{Measure, Table, TableSchemas, column};
pub use transform::{Generalization, truncate_ip};
