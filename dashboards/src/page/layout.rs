//! The frame around every page.

use ameles_ledger::Principal;
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The river in the mark: three waves.
const MARK: &str = r#"<svg class="mark" viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"></rect><path d="M5 12c3.7-4 7.3-4 11 0s7.3 4 11 0"></path><path d="M5 18c3.7-4 7.3-4 11 0s7.3 4 11 0" opacity=".7"></path><path d="M5 24c3.7-4 7.3-4 11 0s7.3 4 11 0" opacity=".4"></path></svg>"#;
/// The same as an icon, in the address itself: no request, and no script can be in it.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' fill='%230f766e'/%3E%3Cg fill='none' stroke='%23fff' stroke-width='2.6' stroke-linecap='round'%3E%3Cpath d='M5 12c3.7-4 7.3-4 11 0s7.3 4 11 0'/%3E%3Cpath d='M5 18c3.7-4 7.3-4 11 0s7.3 4 11 0' opacity='.7'/%3E%3Cpath d='M5 24c3.7-4 7.3-4 11 0s7.3 4 11 0' opacity='.4'/%3E%3C/g%3E%3C/svg%3E";

/// A page; with the name and role of whoever is signed in.
pub(super) fn page(title: &str, signed_in: Option<&Principal>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Ameles" }
                link rel="icon" href=(ICON);
                link rel="stylesheet" href=(concat!("/assets/style.css?v=", env!("CARGO_PKG_VERSION")));
            }
            body {
                header.top { div.wrap {
                    a.brand href="/" { (PreEscaped(MARK)) "Ameles" }
                    nav {
                        @if signed_in.is_some() { a href="/" { "Overview" } }
                        a href="/docs" { "API" }
                        @if let Some(principal) = signed_in {
                            span.who title="the token's name and role" { (principal.name()) " · " (principal.role()) }
                            form method="post" action="/logout" { button.quiet type="submit" { "Sign out" } }
                        }
                    }
                } }
                main.wrap { (body) }
            }
        }
    }
}
