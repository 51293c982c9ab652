//! What others say is bounded wherever a plan repeats it.

use akash_redis::model::node::{PathKind, PeerPath, Process, Role};
use akash_redis::model::status_page::PageView;
use akash_redis::model::time::UnixMs;

use crate::scene::{NOW, Scene, name};

#[test]
fn a_node_that_says_a_lot_does_not_fill_a_plan() {
    let huge = || "x".repeat(3_000_000);
    let mut scene = Scene::three();
    scene.node(1, |view| {
        let path = PeerPath {
            name: format!("{}.mesh", name(0)),
            kind: PathKind::PeerRelay,
            via: huge(),
            ..PeerPath::default()
        };
        view.state.mesh.paths = vec![path];
        view.state.notes = vec![huge(), huge()];
    });
    scene.node(2, |view| {
        view.connected = false;
        view.heard = UnixMs(NOW - 5000);
        view.state.mesh.dns_name = huge();
    });
    let page = PageView {
        at: UnixMs(NOW - 1000),
        boot_id: huge(),
        clock: UnixMs(NOW),
        mesh: huge(),
        health: vec![huge()],
        process: Process::Running,
        role: Role::Replica,
        fenced: true,
        epoch: 1,
        lacks: vec![huge()],
    };
    scene.inventory.pages.insert(name(2), page);
    let plan = scene.plan(NOW);
    let status = serde_json::to_string(&plan.status).unwrap();
    assert!(
        status.contains("its status page says") && status.contains("xxx"),
        "{}",
        &status[..status.len().min(2000)]
    );
    assert!(status.len() < 20_000, "{} bytes of status", status.len());
    let events: usize = plan.events.iter().map(|(_, message)| message.len()).sum();
    let reasons: usize = plan.steps.iter().map(|step| step.reason.len()).sum();
    assert!(events + reasons < 20_000, "{events} bytes of events, {reasons} of reasons");
    let record = serde_json::to_string(&plan.record).unwrap();
    assert!(record.len() < 20_000, "{} bytes of record", record.len());
}
