//! ameles-dashboards
