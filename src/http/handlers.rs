//! All handlers, each with the parts that it uses.

use std::sync::Arc;

use super::{
    dashboard::DashboardRoutes, erasures::ErasureRoutes, ingest::Ingest, ops::Ops, parts::EdgeParts, query::Query,
    shipping::ShippingRoutes, stats::StatsRoutes, stop::Stop, tail::TailRoute, websites::WebsiteRoutes,
};

/// What the table of routes leads to.
pub(super) struct Handlers {
    pub(super) ingest: Ingest,
    pub(super) query: Query,
    pub(super) tail: TailRoute,
    pub(super) websites: WebsiteRoutes,
    pub(super) stats: StatsRoutes,
    pub(super) dashboard: DashboardRoutes,
    pub(super) erasures: ErasureRoutes,
    pub(super) shipping: ShippingRoutes,
    pub(super) ops: Ops,
}

impl Handlers {
    pub(super) fn new(parts: &EdgeParts, stop: &Arc<Stop>) -> Self {
        Self {
            ingest: Ingest::new(parts),
            query: Query::new(parts),
            tail: TailRoute::new(parts, stop),
            websites: WebsiteRoutes::new(parts),
            stats: StatsRoutes::new(parts),
            dashboard: DashboardRoutes::new(parts),
            erasures: ErasureRoutes::new(parts),
            shipping: ShippingRoutes::new(parts),
            ops: Ops::new(parts, stop),
        }
    }
}
