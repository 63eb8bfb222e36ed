//! `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{
    broker_link::BrokerLink,
    db::{Db, DbError, agent, node},
    lifecycle::Lifecycle,
    metrics::{Census, Metrics},
    nodes::Nodes,
};

const RETRY_SECONDS: &str = "1";

/// What the pages show.
pub(crate) struct Pages {
    pub(crate) db: Db,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) broker: Arc<BrokerLink>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) lifecycle: Lifecycle,
}

/// The routes.
pub(crate) fn router(pages: Arc<Pages>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages)
}

/// Ready to take calls: not going down, and able to do everything that is configured.
async fn ready(State(pages): State<Arc<Pages>>) -> Response {
    let unwritable = pages.db.health().borrow().trouble();
    let trouble = if pages.lifecycle.is_draining() {
        "draining\n".to_owned()
    } else if let Some(unwritable) = unwritable {
        format!("{unwritable}\n")
    } else if !pages.broker.is_healthy() {
        "broker down: the directory is served, credentials are not\n".to_owned()
    } else {
        return "ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_SECONDS)], trouble).into_response()
}

async fn metrics(State(pages): State<Arc<Pages>>) -> Response {
    let census = match census(&pages).await {
        Ok(census) => census,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "counting for the metrics failed");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    match pages.metrics.render(census) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(http::header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn census(pages: &Pages) -> Result<Census, DbError> {
    let mut tx = pages.db.read().await?;
    let (nodes_online, nodes_offline) = node::count(&mut tx).await?;
    let agents = agent::count_live(&mut tx).await?;
    let sessions = u64::try_from(pages.nodes.session_count()).unwrap_or(u64::MAX);
    Ok(Census { sessions, nodes_online, nodes_offline, agents })
}
