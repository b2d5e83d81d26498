//! Which next version a contract may have.
//!
//! Readers are whoever queries the tables, and Ameles itself reading past
//! events again (a backfill, an offline device's late batch). A next version may
//! add columns, dimensions and event types, and loosen what it asks. It may not
//! take a column away, change what a stored value means, or ask for what past
//! events do not have.

use super::error::{ContractError, Faults, Rule};
use super::{Contract, Field};

impl Contract {
    /// Whether `next` may follow this version.
    ///
    /// # Errors
    /// All that would break readers, each with its field.
    pub fn check_successor(&self, next: &Self) -> Result<(), ContractError> {
        let mut faults = Faults::default();
        let mut fault = |at: &str, reason: String, remedy: &str| faults.add(at, Rule::Successor, reason, remedy);
        if next.name != self.name {
            let reason = format!("the contract is called `{}`, not `{}`", self.name, next.name);
            fault("x-contract.name", reason, "keep the name; another contract needs another home");
        }
        if u64::from(next.version) != u64::from(self.version) + 1 {
            let reason = format!("version {} cannot follow version {}", next.version, self.version);
            fault("x-contract.version", reason, "count up by one");
        }
        for old in self.fields.iter().filter(|field| field.column.is_some()) {
            match next.fields.iter().find(|field| field.column == old.column) {
                Some(new) => self.check_column(old, new, &mut fault),
                None => {
                    let column = old.column.as_deref().unwrap_or_default();
                    let reason = format!("its column `{column}` would be stored no longer");
                    fault(&old.name, reason, "keep it declared as it is; devices need not send it");
                }
            }
        }
        self.check_demands(next, &mut fault);
        self.check_roles(next, &mut fault);
        faults.or(())
    }

    fn check_column(&self, old: &Field, new: &Field, fault: &mut impl FnMut(&str, String, &str)) {
        let at = new.name.as_str();
        let remedy = "leave it, and add a field of another name";
        if old.stored_type() != new.stored_type() {
            fault(at, "its column would change type".to_owned(), remedy);
        } else if old.transform != new.transform || old.fold_case != new.fold_case {
            fault(at, "its stored values would mean something else (transform or fold_case changed)".to_owned(), remedy);
        }
        if old.path != new.path {
            let reason = format!("its column was read from `{}`", old.name);
            fault(at, reason, "read it from the same field as before");
        }
        if old.role.and_then(super::Role::column).is_some() && old.role != new.role {
            fault(at, "its role would change".to_owned(), "leave the role with this field");
        }
    }

    /// What `next` asks of every event must have been asked before.
    fn check_demands(&self, next: &Self, fault: &mut impl FnMut(&str, String, &str)) {
        let remedy = "leave it optional: past events do not all have it";
        for new in &next.fields {
            let old = self.field(&new.name);
            let parent = &new.path[..new.path.len().saturating_sub(1)];
            // Below an object that past events cannot have, nothing is missed.
            let reachable = parent.is_empty() || self.fields.iter().any(|field| field.path == parent);
            if new.required && reachable && old.is_none_or(|old| !old.required) {
                fault(&new.name, "would be required".to_owned(), remedy);
            }
            if old.is_some_and(|old| old.nullable && !new.nullable) {
                fault(&new.name, "could be null no longer".to_owned(), remedy);
            }
        }
    }

    fn check_roles(&self, next: &Self, fault: &mut impl FnMut(&str, String, &str)) {
        let (old, new) = (self.tables(), next.tables());
        for dimension in old.dimensions.iter().filter(|name| new.dimension_index(name).is_none()) {
            let reason = format!("`{dimension}` would be a dimension no longer");
            fault("x-roles.dimensions", reason, "leave it among the dimensions");
        }
        for measure in &old.measures {
            let at = format!("x-roles.measures.{}", measure.name);
            match new.measure_index(&measure.name).map(|index| &new.measures[index]) {
                None => fault(&at, "would be measured no longer".to_owned(), "leave it"),
                Some(other) if other.event_type != measure.event_type => {
                    fault(&at, "would count another event type".to_owned(), "leave it, and add one of another name");
                }
                Some(_) => {}
            }
        }
        for measure in new.measures.iter().filter(|measure| old.measure_index(&measure.name).is_none()) {
            // `activity` holds lists aligned with the days: past months would have none.
            let at = format!("x-roles.measures.{}", measure.name);
            let reason = "would be missing from the months that are rolled up already".to_owned();
            fault(&at, reason, "count the events by SQL, or begin a new home with it");
        }
        if old.activation_type != new.activation_type {
            let reason = "other events would activate a device".to_owned();
            fault("x-roles.activation_type", reason, "leave it as it is");
        }
    }
}
