//! What an apply would do, without doing it.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;

use super::actions::Refusal;
use super::messages::{Previewed, Previews, Tests};
use super::routes::{App, admitted, parse, present};
use crate::api::preview::{self, Consequence, Preview, PreviewChange};
use crate::api::types::RedisCluster;
use crate::api::validate::Problem;
use crate::model::incarnation::Incarnation;
use crate::model::record::Record;
use crate::store::Stored;

/// Looks at manifests as an apply would, in their order.
pub(super) async fn preview(
    State(app): State<App>,
    body: Bytes,
) -> Result<Json<Previews>, Refusal> {
    let wanted: Previewed = parse(&body)?;
    let (mut previews, mut good) = (Vec::new(), Vec::new());
    for cluster in wanted.clusters {
        let (preview, stored) = look(&app, cluster).await?;
        if let Some(stored) = stored {
            good.push((previews.len(), stored));
        }
        previews.push(preview);
    }
    let stored = good.iter().map(|(_, stored)| stored.clone()).collect();
    let appraisals = app.appraiser.appraise(stored).await;
    for ((at, _), appraisal) in good.into_iter().zip(appraisals) {
        let preview: &mut Preview = &mut previews[at];
        (preview.bill, preview.offers) = (appraisal.bill, appraisal.offers);
        preview.warnings.extend(appraisal.warnings);
    }
    Ok(Json(Previews { items: previews }))
}

/// One manifest: what would be different, and the object as it would be; nothing of the latter when
/// it would be refused.
async fn look(app: &App, wanted: RedisCluster) -> Result<(Preview, Option<Stored>), Refusal> {
    let name = wanted.metadata.name.clone();
    let present = present(app, &name).await?;
    let is_new = present.is_none();
    let runs = present
        .as_ref()
        .is_some_and(|old| old.record.incarnations.values().any(Incarnation::has_joined));
    let changes = present
        .as_ref()
        .map_or_else(Vec::new, |old| preview::changes(&old.cluster.spec, &wanted.spec, runs));
    let (nodes_changed, nodes_closed) =
        present.as_ref().map_or((0, 0), |old| touched(old, &wanted, &changes));
    let preview =
        Preview { name, is_new, changes, nodes_changed, nodes_closed, ..Preview::default() };
    let mut cluster = wanted;
    if let Err(refusal) = admitted(app, present.as_ref(), &mut cluster) {
        let problems = refusal.message.lines().map(problem).collect();
        return Ok((Preview { problems, ..preview }, None));
    }
    let stored = match present {
        Some(old) => {
            let metadata = crate::api::types::Metadata {
                annotations: cluster.metadata.annotations,
                labels: cluster.metadata.labels,
                ..old.cluster.metadata
            };
            let cluster = RedisCluster { metadata, status: old.cluster.status, ..cluster };
            Stored { cluster, ..old }
        }
        None => Stored { cluster, record: Record::default(), record_version: 0 },
    };
    Ok((preview, Some(stored)))
}

/// How many nodes of a cluster would be changed, and how many closed.
fn touched(old: &Stored, wanted: &RedisCluster, changes: &[PreviewChange]) -> (u32, u32) {
    let has = |consequence| changes.iter().any(|change| change.consequence == consequence);
    let living = old.record.incarnations.values().filter(|i| i.condemned.is_none()).count();
    let living = u32::try_from(living).unwrap_or(u32::MAX);
    if has(Consequence::BuysAnew) {
        return (0, living);
    }
    let closed = living.saturating_sub(wanted.spec.nodes);
    let differs = has(Consequence::Live) || has(Consequence::Rolls);
    (if differs { living - closed } else { 0 }, closed)
}

/// `spec.nodes: 12 nodes cannot be run` is about a field; other sentences are about the whole.
fn problem(line: &str) -> Problem {
    let field = |path: &str| {
        ["spec", "metadata", "kind", "apiVersion"]
            .contains(&path.split(['.', '[']).next().unwrap_or_default())
            && !path.contains(' ')
    };
    match line.split_once(": ") {
        Some((path, message)) if field(path) => {
            Problem { path: path.to_owned(), message: message.to_owned() }
        }
        _ => Problem { path: String::new(), message: line.to_owned() },
    }
}

/// Sends a test message to everybody who is told outside.
pub(super) async fn test_notifications(State(app): State<App>) -> Json<Tests> {
    Json(Tests { items: app.appraiser.test_notifications().await })
}
