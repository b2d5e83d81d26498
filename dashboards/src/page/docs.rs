//! The API for readers.

use maud::{Markup, html};

use super::layout::page;
use crate::routes::OPERATIONS;

// No `async fn`: its hidden type would depend on the table of operations, which names this handler.
pub(crate) fn docs() -> std::future::Ready<Markup> {
    std::future::ready(rendered())
}

fn rendered() -> Markup {
    page(
        "API",
        None,
        html! {
            div.intro { div {
                h1 { "API" }
                p { "Send a token as " code { "Authorization: Bearer …" } ". The whole description is in " a href="/openapi.json" { "openapi.json" } "." }
            } }
            section.card { div.scroll { table {
                thead { tr { th { "Request" } th { "For" } th { "Roles" } } }
                tbody { @for operation in &OPERATIONS {
                    tr {
                        td { code { (operation.method.to_uppercase()) " " (operation.path) } }
                        td { (operation.summary) }
                        td.muted { @match operation.grant { None => "all", Some(grant) => (grant.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ")) } }
                    }
                } }
            } } }
        },
    )
}
