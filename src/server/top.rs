//! `GET /v1alpha1/top`: what each node has to do at this moment.

use axum::Json;
use axum::extract::State;

use super::routes::{Answer, App};
use crate::api::top::{self, TopReport};

/// All nodes of all clusters, by cluster.
pub(super) async fn top(State(app): State<App>) -> Answer<TopReport> {
    let mut report = TopReport::default();
    for stored in app.store.list().await? {
        let mut cluster = stored.cluster;
        app.status_cache.refresh(&mut cluster);
        let (name, status) = (cluster.metadata.name, cluster.status.unwrap_or_default());
        let loads = app.status_cache.loads(&name);
        let of_node = top::nodes(&name, &status, |node| loads.get(&node.incarnation).cloned());
        report.items.extend(of_node);
    }
    Ok(Json(report))
}
