//! From an identifier as typed to the subjects that it stands for.

use ameles_core::{Subject, SubjectKind};
use ameles_schemas::{Contract, Transform};
use zeroize::Zeroize;

use crate::{Keyring, KeyringError, RawIdentifier, normalise};

/// An identifier names no subject. Never shows the identifier.
#[derive(Debug, thiserror::Error)]
pub enum IdentifyError {
    /// The contract knows no such subjects.
    #[error("the data contract {contract:?} has no field for a {kind}: nothing of that kind is stored")]
    NoSuchRole {
        /// The contract's name.
        contract: String,
        /// What was asked for.
        kind: SubjectKind,
    },
    /// The contract drops the field.
    #[error("the data contract {contract:?} drops the {kind}: nothing under that identifier is stored")]
    Dropped {
        /// The contract's name.
        contract: String,
        /// What was asked for.
        kind: SubjectKind,
    },
    /// Nothing is left of the identifier.
    #[error("the identifier is empty")]
    Empty,
    /// The keyring lacks the domain.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
}

/// The pseudonyms of an identifier under every epoch of its domain, oldest
/// first, spelt as ingest spells it.
///
/// # Errors
/// When the contract stores no such subjects, nothing is left of the identifier
/// after normalisation, or the keyring lacks the domain.
pub fn identify(
    keyring: &Keyring,
    contract: &Contract,
    kind: SubjectKind,
    raw: &RawIdentifier,
) -> Result<Vec<(u32, Subject)>, IdentifyError> {
    let roles = contract.roles();
    let role = match kind {
        SubjectKind::Device => Some(roles.device),
        SubjectKind::User => roles.user,
    };
    let no_such_role = || IdentifyError::NoSuchRole { contract: contract.name().to_owned(), kind };
    let field = role.and_then(|index| contract.fields().get(index)).ok_or_else(no_such_role)?;
    let Transform::Pseudonymize { domain } = &field.transform else {
        return Err(IdentifyError::Dropped { contract: contract.name().to_owned(), kind });
    };
    let hashers = keyring.hashers_all_epochs(domain)?;
    let mut normalised = normalise(raw.expose(), field.fold_case);
    if normalised.is_empty() {
        return Err(IdentifyError::Empty);
    }
    let subjects = hashers
        .iter()
        .map(|(epoch, hasher)| {
            let subject = match kind {
                SubjectKind::Device => Subject::Device(hasher.pseudonym(&normalised)),
                SubjectKind::User => Subject::User(hasher.pseudonym(&normalised)),
            };
            (*epoch, subject)
        })
        .collect();
    if let std::borrow::Cow::Owned(text) = &mut normalised {
        text.zeroize();
    }
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use ameles_core::{ManualClock, SeededRandom, Timestamp};

    use super::*;
    use crate::KeyEncryptionKey;

    fn keyring(folder: &tempfile::TempDir) -> Keyring {
        let random = SeededRandom::new(3);
        let kek = KeyEncryptionKey::create(&folder.path().join("key"), &random).unwrap();
        let clock = ManualClock::new(Timestamp::from_secs(1_530_403_200));
        let mut keyring =
            Keyring::create(&folder.path().join("keyring.json"), &kek, &["device", "user", "event"], &clock, &random).unwrap();
        keyring.rotate("device", &clock, &random).unwrap();
        keyring
    }

    #[test]
    fn names_the_subject_under_every_epoch_as_ingest_would() {
        let folder = tempfile::tempdir().unwrap();
        let (keyring, contract) = (keyring(&folder), Contract::default_contract());
        let raw = RawIdentifier::new("\u{a0} 800000002492\r\n".to_owned());
        let subjects = identify(&keyring, &contract, SubjectKind::Device, &raw).unwrap();
        assert_eq!(subjects.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2]);
        assert_ne!(subjects[0].1, subjects[1].1);
        let current = keyring.hasher("device").unwrap();
        assert_eq!(subjects[1].1, Subject::Device(current.pseudonym("800000002492")));
    }

    #[test]
    fn a_user_is_not_the_device_of_the_same_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let (keyring, contract) = (keyring(&folder), Contract::default_contract());
        let raw = RawIdentifier::new("800000002492".to_owned());
        let device = identify(&keyring, &contract, SubjectKind::Device, &raw).unwrap();
        let user = identify(&keyring, &contract, SubjectKind::User, &raw).unwrap();
        assert_eq!(user[0].1.kind(), SubjectKind::User);
        assert_ne!(device[0].1.as_bytes(), user[0].1.as_bytes());
    }

    #[test]
    fn a_blank_identifier_names_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (keyring, contract) = (keyring(&folder), Contract::default_contract());
        for blank in ["", " \t", "\u{2003}\u{a0}"] {
            let raw = RawIdentifier::new(blank.to_owned());
            let refused = identify(&keyring, &contract, SubjectKind::User, &raw);
            assert!(matches!(refused, Err(IdentifyError::Empty)), "{blank:?}");
        }
    }
}
