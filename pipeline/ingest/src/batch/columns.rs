//! The stored columns of a contract beyond the ones that every contract has.

use ameles_pseudonym::DomainHasher;
use ameles_schemas::{Contract, FieldKind, Generalization, Transform, truncate_ip};
use arrow::array::{ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder};
use std::sync::Arc;

use crate::admission::Identifier;
use crate::decode::Decoded;

/// How one stored column is filled.
pub(crate) struct ColumnPlan {
    field: usize,
    form: Form,
}

enum Form {
    Text,
    Address,
    Prefix(Generalization),
    Integer(Option<Generalization>),
    Number(Option<Generalization>),
    Boolean,
    Time,
    Pseudonym(Box<Identifier>),
}

impl ColumnPlan {
    /// One per field of `Contract::stored`, in the order of the table's columns behind the roles'.
    pub(crate) fn of_contract<E>(
        contract: &Contract,
        identifier_bytes_max: usize,
        mut hasher: impl FnMut(&str) -> Result<DomainHasher, E>,
    ) -> Result<Vec<Self>, E> {
        let mut plans = Vec::new();
        for at in contract.stored() {
            let field = &contract.fields()[at];
            if field.stored_type().is_none() {
                continue;
            }
            let coarser = match &field.transform {
                Transform::Generalize(generalization) => Some(*generalization),
                _ => None,
            };
            let form = match (&field.transform, field.kind) {
                (Transform::Pseudonymize { domain }, _) => {
                    Form::Pseudonym(Box::new(Identifier::new(hasher(domain)?, field.fold_case, identifier_bytes_max)))
                }
                (Transform::TruncateIp, _) => Form::Address,
                (_, FieldKind::Integer) => Form::Integer(coarser),
                (_, FieldKind::Number) => Form::Number(coarser),
                (_, FieldKind::Boolean) => Form::Boolean,
                (_, FieldKind::Timestamp) => Form::Time,
                (_, _) => coarser.map_or(Form::Text, Form::Prefix),
            };
            plans.push(Self { field: at, form });
        }
        Ok(plans)
    }

    /// The field that fills the column.
    pub(crate) const fn field(&self) -> usize {
        self.field
    }

    /// A value that the contract admits but the transform cannot take (no address, an empty identifier).
    pub(crate) fn refuses(&self, event: &Decoded<'_>) -> bool {
        match (&self.form, event.text(self.field)) {
            (Form::Address, Some(text)) => truncate_ip(text).is_none(),
            (Form::Pseudonym(..), Some(_)) => self.pseudonym(event).is_none(),
            _ => false,
        }
    }

    fn pseudonym(&self, event: &Decoded<'_>) -> Option<[u8; 16]> {
        match &self.form {
            Form::Pseudonym(identifier) => identifier.key(event, self.field).ok().flatten(),
            _ => None,
        }
    }

    /// Whether [`Self::refuses`] can ever say yes.
    pub(crate) const fn may_refuse(&self) -> bool {
        matches!(self.form, Form::Address | Form::Pseudonym(..))
    }
}

enum Builder {
    Text(StringBuilder),
    Integer(Int64Builder),
    Number(Float64Builder),
    Boolean(BooleanBuilder),
    Time(TimestampMicrosecondBuilder),
    Binary(BinaryBuilder),
}

/// The builders of one part: the type, then the stored columns.
pub(crate) struct Columns {
    event_type: StringBuilder,
    others: Vec<Builder>,
}

/// What a row of text is thought to take, in bytes.
const TEXT_BYTES: usize = 8;

impl Columns {
    pub(crate) fn new(plans: &[ColumnPlan], rows: usize) -> Self {
        let text = || StringBuilder::with_capacity(rows, rows * TEXT_BYTES);
        let builder = |plan: &ColumnPlan| match plan.form {
            Form::Text | Form::Address | Form::Prefix(_) => Builder::Text(text()),
            Form::Integer(_) => Builder::Integer(Int64Builder::with_capacity(rows)),
            Form::Number(_) => Builder::Number(Float64Builder::with_capacity(rows)),
            Form::Boolean => Builder::Boolean(BooleanBuilder::with_capacity(rows)),
            Form::Time => Builder::Time(TimestampMicrosecondBuilder::with_capacity(rows)),
            Form::Pseudonym(..) => Builder::Binary(BinaryBuilder::with_capacity(rows, rows * 16)),
        };
        Self { event_type: text(), others: plans.iter().map(builder).collect() }
    }

    pub(crate) fn push(&mut self, plans: &[ColumnPlan], event_type: &str, event: &Decoded<'_>) {
        self.event_type.append_value(event_type);
        for (plan, builder) in plans.iter().zip(&mut self.others) {
            let field = plan.field;
            match (builder, &plan.form) {
                (Builder::Text(builder), Form::Text) => builder.append_option(event.text(field)),
                (Builder::Text(builder), Form::Address) => builder.append_option(event.text(field).and_then(truncate_ip)),
                (Builder::Text(builder), Form::Prefix(coarser)) => {
                    builder.append_option(event.text(field).map(|text| coarser.text(text)));
                }
                (Builder::Integer(builder), Form::Integer(coarser)) => {
                    let value = event.integer(field);
                    builder.append_option(value.map(|value| coarser.map_or(value, |coarser| coarser.integer(value))));
                }
                (Builder::Number(builder), Form::Number(coarser)) => {
                    let value = event.number(field);
                    builder.append_option(value.map(|value| coarser.map_or(value, |coarser| coarser.number(value))));
                }
                (Builder::Boolean(builder), _) => builder.append_option(event.boolean(field)),
                (Builder::Time(builder), _) => builder.append_option(event.time(field).map(|time| time.micros())),
                (Builder::Binary(builder), _) => builder.append_option(plan.pseudonym(event)),
                // `new` pairs builders and forms.
                _ => {}
            }
        }
    }

    /// The type, then the others.
    pub(crate) fn finish(&mut self) -> Vec<ArrayRef> {
        let mut arrays: Vec<ArrayRef> = vec![Arc::new(self.event_type.finish())];
        arrays.extend(self.others.iter_mut().map(|builder| -> ArrayRef {
            match builder {
                Builder::Text(builder) => Arc::new(builder.finish()),
                Builder::Integer(builder) => Arc::new(builder.finish()),
                Builder::Number(builder) => Arc::new(builder.finish()),
                Builder::Boolean(builder) => Arc::new(builder.finish()),
                Builder::Time(builder) => Arc::new(builder.finish().with_timezone("UTC")),
                Builder::Binary(builder) => Arc::new(builder.finish()),
            }
        }));
        arrays
    }
}
