//! The dashboard: one month's report card and the way there.

use std::sync::Arc;

use ameles_core::{Day, Month};
use ameles_ledger::{LedgerCounts, Principal, Role};
use ameles_queries::{Completeness, Filter};
use ameles_reports::figures::{Figures, Wanted};
use ameles_reports::sections::{card, charts, month_name};
use ameles_reports::{ReportError, StoredReport};
use ameles_schemas::Table;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::layout::page;
use crate::auth::by_session;
use crate::routes::{partner_filter, stored};
use crate::{ApiError, ServerState};

#[derive(Deserialize, Default)]
pub(crate) struct Choice {
    month: Option<Month>,
}

/// What one look at the warehouse gives.
struct Look {
    months: Vec<Month>,
    figures: Option<Figures>,
    complete_until: Option<Day>,
    versions: String,
}

pub(crate) async fn overview(
    State(state): State<Arc<ServerState>>,
    Query(choice): Query<Choice>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(principal) = by_session(&headers, &state).await? else {
        return Ok(Redirect::to("/login").into_response());
    };
    if principal.role() == Role::Ingest {
        return Err(ApiError::Forbidden("the dashboard needs the role analyst, compliance or admin".to_owned()));
    }
    let filters: Vec<Filter> = partner_filter(&state, &principal)?.into_iter().collect();
    let guard = state.guard(&principal, None)?;
    let completeness = (state.parts.completeness)();
    let filters = &filters;
    let look = state
        .ask(&principal, |view, metrics| async move {
            let mut months = view.months(Table::Activity);
            months.sort_unstable();
            let versions = view.tables().tables().into_iter().map(|table| format!("{table} v{}", view.snapshot().version(table)));
            let versions = versions.collect::<Vec<_>>().join(", ");
            let month = choice.month.filter(|month| months.contains(month)).or(months.last().copied());
            let (Some(month), Some((_, end))) = (month, view.snapshot().data_range()) else {
                return Ok::<_, ReportError>(Look { months, figures: None, complete_until: None, versions });
            };
            let last_day = end.day();
            let wanted = Wanted { month, last_day, filters: filters.clone(), breakdowns: vec!["product", "country"], guard };
            let figures = Figures::gather(&metrics, view.tables(), &wanted).await?;
            let complete_until = complete_until(&completeness, last_day);
            Ok(Look { months, figures: Some(figures), complete_until: Some(complete_until), versions })
        })
        .await?;
    let limited = principal.partner().is_some();
    let reports = if limited { Vec::new() } else { stored(&state).await? };
    let erasures = match principal.role() {
        Role::Compliance | Role::Admin => Some(state.ledger().counts().await?),
        _ => None,
    };
    let body = match &look.figures {
        Some(figures) => html! {
            (intro(figures, &look, &principal))
            (card(figures))
            (charts(figures))
            @if erasures.is_some() || !limited {
                div.grid2 {
                    @if let Some(counts) = &erasures { (requests(counts)) }
                    @if !limited { (finished(&reports, figures.month, principal.role())) }
                }
            }
            footer.foot {
                span { "Exact counts, never estimated. Groups of fewer than " (state.parts.k) " are folded. * can still change." }
                span { (look.versions) }
            }
        },
        None => html! { (empty()) @if let Some(counts) = &erasures { (requests(counts)) } },
    };
    let title = look.figures.as_ref().map_or_else(|| "Overview".to_owned(), |figures| month_name(figures.month));
    Ok(page(&title, Some(&principal), body).into_response())
}

fn intro(figures: &Figures, look: &Look, principal: &Principal) -> Markup {
    let months = &look.months;
    let place = months.iter().position(|month| *month == figures.month);
    let earlier = place.and_then(|place| place.checked_sub(1)).and_then(|place| look.months.get(place));
    let later = place.and_then(|place| look.months.get(place + 1));
    html! {
        div.intro {
            div {
                h1 { (month_name(figures.month)) }
                p {
                    @match look.complete_until {
                        Some(day) if months.first().is_some_and(|first| day >= first.first_day()) => {
                            "Complete until " strong { (spelled(day)) }
                            @if day < figures.days.1 { "; what is marked * can still change" }
                        }
                        _ => "No month has closed yet: what is marked * can still change",
                    }
                    @if let Some(partner) = principal.partner() { " · partner " (partner) " only" }
                }
            }
            form.months method="get" action="/" {
                (step(earlier, "←", "the month before"))
                select name="month" aria-label="month" {
                    @for month in look.months.iter().rev() { option value=(month) selected[*month == figures.month] { (month_name(*month)) } }
                }
                button.quiet type="submit" { "Show" }
                (step(later, "→", "the next month"))
            }
        }
    }
}

fn step(month: Option<&Month>, sign: &str, name: &str) -> Markup {
    html! {
        @match month {
            Some(month) => a.step href=(format!("/?month={month}")) aria-label=(name) title=(month_name(*month)) { (sign) },
            None => span.step.off aria-hidden="true" { (sign) },
        }
    }
}

/// The last day whose numbers are final: all data has arrived, and its month has closed.
fn complete_until(completeness: &Completeness, last_day: Day) -> Day {
    let arrived = completeness.watermark.day().plus(-1);
    arrived.min(completeness.closed_before.first_day().plus(-1)).min(last_day)
}

/// `30 September 2018`.
fn spelled(day: Day) -> String {
    format!("{} {}", day.of_month(), month_name(day.month()))
}

fn requests(counts: &LedgerCounts) -> Markup {
    html! {
        section.card {
            div.cardhead { h2 { "Erasure requests" } p { "subjects are counted nowhere from the moment a request is entered" } }
            dl.counts {
                div { dt { "pending" } dd { (counts.pending) } }
                div { dt { "in progress" } dd { (counts.in_progress) } }
                div { dt { "completed" } dd { (counts.completed) } }
                div.late[counts.overdue > 0] { dt { "overdue" } dd { (counts.overdue) } }
            }
        }
    }
}

fn finished(reports: &[StoredReport], month: Month, role: Role) -> Markup {
    html! {
        section.card {
            div.cardhead { h2 { "Reports" } p { "self-contained pages with their tables as CSV" } }
            @if reports.is_empty() { p.muted { "None has been made yet." } }
            @else {
                ul.reports { @for report in reports.iter().take(6) {
                    li {
                        a href=(format!("/v1/reports/{}/report.html", report.id)) { "Monthly activity, " (month_name(report.manifest.month)) }
                        @if !report.manifest.complete { span.muted { " not complete" } }
                    }
                } }
            }
            @if matches!(role, Role::Analyst | Role::Admin) {
                form method="post" action="/v1/reports/monthly-activity/runs" {
                    input type="hidden" name="month" value=(month);
                    button type="submit" { "Make the report for " (month_name(month)) }
                }
            }
        }
    }
}

fn empty() -> Markup {
    html! {
        section.card.welcome {
            h1 { "Nothing here yet" }
            p { "The warehouse is empty. Send it some events, and this page shows what the fleet does." }
            h2 { "From files" }
            pre { code { "ameles ingest events.ndjson.gz" } }
            h2 { "Over HTTP" }
            pre { code { "curl -H \"Authorization: Bearer $TOKEN\" --data-binary @events.ndjson \\\n     http://127.0.0.1:7070/v1/events" } }
            h2 { "A synthetic fleet" }
            pre { code { "ameles simulate --help" } }
            p.muted { "Numbers appear once a month has enough devices for the smallest group." }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn days_are_spelled_out() {
        assert_eq!(spelled("2018-09-30".parse().unwrap()), "30 September 2018");
    }

    #[test]
    fn an_open_month_is_not_complete() {
        let completeness = Completeness { watermark: "2018-10-03T12:00:00Z".parse().unwrap(), closed_before: "2018-09".parse().unwrap() };
        let until = |last: &str| complete_until(&completeness, last.parse().unwrap()).to_string();
        assert_eq!(until("2018-10-02"), "2018-08-31");
        assert_eq!(until("2018-08-20"), "2018-08-20");
    }

    #[test]
    fn the_first_month_has_none_before() {
        assert!(step(None, "←", "x").into_string().contains("off"));
        assert!(step(Some(&"2018-08".parse().unwrap()), "←", "x").into_string().contains("/?month=2018-08"));
    }
}
