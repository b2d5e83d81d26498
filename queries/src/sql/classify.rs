//! What an expression tells about the rows below it.

use ameles_schemas::{Table, TableSchemas, column};
use arrow::datatypes::DataType;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::QueryError;
use crate::functions::TOTAL;

/// What may be done with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Says nothing: a literal.
    Free,
    /// A value shared by many: to group and filter by.
    Group,
    /// A device's pseudonym: to be counted.
    Device,
    /// A user's pseudonym: to be counted.
    User,
    /// A time: to be cut to the day or coarser.
    Instant,
    /// A measure's list: to be totalled.
    Measure,
    /// A number to sum.
    Amount,
    /// Nothing.
    Secret,
}

/// Functions that cannot fail on a row, and so tell nothing by failing.
const FUNCTIONS: [&str; 9] = ["lower", "upper", "coalesce", "nullif", "btrim", "ltrim", "rtrim", "starts_with", "concat"];
const DATE_PARTS: [&str; 8] = ["year", "quarter", "month", "week", "day", "dow", "doy", "isoyear"];

/// The class of a table's column.
pub fn column_class(schemas: &TableSchemas, table: Table, name: &str) -> Class {
    let is_dimension = schemas.dimension_index(name).is_some();
    match name {
        column::DEVICE => Class::Device,
        column::USER if matches!(table, Table::Events | Table::Links) => Class::User,
        column::MONTH => Class::Group,
        column::TYPE if table == Table::Events => Class::Group,
        column::TS | column::FIRST_TS | column::LAST_TS | column::ACTIVATED_TS => Class::Instant,
        _ if is_dimension && matches!(table, Table::Events | Table::Activity | Table::Devices) => Class::Group,
        _ if table == Table::Activity && schemas.measure_index(name).is_some() => Class::Measure,
        _ => Class::Secret,
    }
}

/// The class of an expression over classified columns.
pub fn classify(expr: &Expr, class_of: &dyn Fn(&Column) -> Class) -> Result<Class, QueryError> {
    let shared = |parts: &[&Expr]| -> Result<Class, QueryError> {
        for part in parts {
            match classify(part, class_of)? {
                Class::Free | Class::Group => {}
                class => return Err(misused(part, class)),
            }
        }
        Ok(Class::Group)
    };
    match expr {
        Expr::Alias(alias) => classify(&alias.expr, class_of),
        Expr::Column(column) => Ok(class_of(column)),
        Expr::Literal(..) => Ok(Class::Free),
        Expr::Not(inner) | Expr::IsNull(inner) | Expr::IsNotNull(inner) | Expr::IsTrue(inner) | Expr::IsFalse(inner) => shared(&[inner]),
        Expr::BinaryExpr(binary) => comparison(binary, class_of, &shared),
        Expr::Like(like) => shared(&[&like.expr, &like.pattern]),
        Expr::Between(between) => shared(&[&between.expr, &between.low, &between.high]),
        Expr::InList(list) => shared(&std::iter::once(&*list.expr).chain(&list.list).collect::<Vec<_>>()),
        Expr::Case(case) => {
            let mut parts: Vec<&Expr> = case.expr.iter().chain(&case.else_expr).map(|part| &**part).collect();
            parts.extend(case.when_then_expr.iter().flat_map(|(when, then)| [&**when, &**then]));
            shared(&parts)
        }
        Expr::Cast(cast) => match (classify(&cast.expr, class_of)?, cast.field.data_type()) {
            (Class::Free, _) => Ok(Class::Free),
            (Class::Instant, DataType::Date32) => Ok(Class::Group),
            (Class::Group, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => Ok(Class::Group),
            _ => Err(QueryError::refused(
                "expressions below the aggregation",
                format!("{expr}: a cast may fail on one row; cast after aggregating"),
            )),
        },
        Expr::ScalarFunction(call) => {
            let arguments: Vec<&Expr> = call.args.iter().collect();
            match (call.func.name(), arguments.as_slice()) {
                (TOTAL, [measure]) if classify(measure, class_of)? == Class::Measure => Ok(Class::Amount),
                ("date_trunc", [unit, time]) => date_part(expr, unit, time, class_of, &["day", "week", "month", "quarter", "year"]),
                ("date_part", [unit, time]) => date_part(expr, unit, time, class_of, &DATE_PARTS),
                (name, _) if FUNCTIONS.contains(&name) => shared(&arguments),
                (name, _) => Err(QueryError::refused(
                    "functions",
                    format!("{name} is not allowed below the aggregation; there are date_trunc, extract, total, {}", FUNCTIONS.join(", ")),
                )),
            }
        }
        _ => Err(QueryError::refused("expressions below the aggregation", format!("{expr} is not allowed there"))),
    }
}

fn comparison(
    binary: &BinaryExpr,
    class_of: &dyn Fn(&Column) -> Class,
    shared: &dyn Fn(&[&Expr]) -> Result<Class, QueryError>,
) -> Result<Class, QueryError> {
    use Operator as O;
    let (left, right) = (&*binary.left, &*binary.right);
    match binary.op {
        O::Lt | O::GtEq if classify(left, class_of)? == Class::Instant => whole_day(left, right),
        O::Gt | O::LtEq if classify(right, class_of)? == Class::Instant => whole_day(right, left),
        O::Eq
        | O::NotEq
        | O::Lt
        | O::LtEq
        | O::Gt
        | O::GtEq
        | O::And
        | O::Or
        | O::IsDistinctFrom
        | O::IsNotDistinctFrom
        | O::StringConcat => shared(&[left, right]),
        O::LikeMatch | O::ILikeMatch | O::NotLikeMatch | O::NotILikeMatch => shared(&[left, right]),
        op => {
            Err(QueryError::refused("expressions below the aggregation", format!("{op} may fail on one row; calculate after aggregating")))
        }
    }
}

fn whole_day(time: &Expr, bound: &Expr) -> Result<Class, QueryError> {
    if is_day(bound) {
        return Ok(Class::Group);
    }
    Err(QueryError::refused("times by day", format!("{time} is compared with {bound}; use a whole day such as DATE '2018-07-01'")))
}

/// Whether a constant is a midnight.
fn is_day(expr: &Expr) -> bool {
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    match expr {
        Expr::Alias(alias) => is_day(&alias.expr),
        Expr::Cast(cast) => is_day(&cast.expr) && is_utc(cast.field.data_type()),
        Expr::Literal(value, _) => match value {
            ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) => {
                let (day, time) = text.split_at_checked(10).unwrap_or((text, ""));
                let midnight = matches!(time, "" | "T00:00:00Z" | " 00:00:00" | "T00:00:00" | " 00:00:00Z" | "T00:00:00+00:00");
                midnight && day.parse::<ameles_core::Day>().is_ok()
            }
            ScalarValue::Date32(Some(_)) => true,
            ScalarValue::TimestampSecond(Some(time), _) => time % (MICROS_PER_DAY / 1_000_000) == 0,
            ScalarValue::TimestampMillisecond(Some(time), _) => time % (MICROS_PER_DAY / 1_000) == 0,
            ScalarValue::TimestampMicrosecond(Some(time), _) => time % MICROS_PER_DAY == 0,
            ScalarValue::TimestampNanosecond(Some(time), _) => time % (MICROS_PER_DAY * 1_000) == 0,
            _ => false,
        },
        _ => false,
    }
}

/// Whether a midnight stays one under this type.
fn is_utc(to: &DataType) -> bool {
    match to {
        DataType::Date32 | DataType::Timestamp(_, None) => true,
        DataType::Timestamp(_, Some(zone)) => matches!(&**zone, "UTC" | "+00:00" | "Z"),
        _ => false,
    }
}

fn date_part(whole: &Expr, unit: &Expr, time: &Expr, class_of: &dyn Fn(&Column) -> Class, allowed: &[&str]) -> Result<Class, QueryError> {
    let unit = match unit {
        Expr::Literal(ScalarValue::Utf8(Some(unit)) | ScalarValue::Utf8View(Some(unit)), _) => unit.to_lowercase(),
        _ => String::new(),
    };
    match classify(time, class_of)? {
        Class::Instant | Class::Group | Class::Free if allowed.contains(&unit.as_str()) => Ok(Class::Group),
        Class::Instant | Class::Group | Class::Free => {
            Err(QueryError::refused("times by day", format!("{whole} is finer than a day; there are {}", allowed.join(", "))))
        }
        class => Err(misused(time, class)),
    }
}

/// Why a value of this class cannot stand where it stands.
pub fn misused(expr: &Expr, class: Class) -> QueryError {
    match class {
        Class::Device | Class::User => {
            QueryError::refused("pseudonyms are counted and nothing else", format!("{expr}; write count(DISTINCT {expr})"))
        }
        Class::Instant => {
            QueryError::refused("times by day", format!("{expr}; write date_trunc('day', {expr}), or compare it by < and >= with a day"))
        }
        Class::Measure => QueryError::refused("measures are summed", format!("{expr}; write sum(total({expr}))")),
        Class::Amount => QueryError::refused("measures are summed", format!("{expr}; write sum({expr})")),
        Class::Free | Class::Group | Class::Secret => {
            QueryError::refused("columns", format!("{expr} is not for analysts; group and filter by dimensions, type, month and days"))
        }
    }
}
