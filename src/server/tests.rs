use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tower::ServiceExt;

use super::appraiser::fake::FakeAppraiser;
use super::dump::fake::FakeDumps;
use super::logs::fake::FakeLogs;
use super::*;
use crate::store::Objects as _;
use crate::store::sqlite::SqliteStore;

fn start(socket: PathBuf) -> (CancellationToken, JoinHandle<Result<(), ServeError>>) {
    let shutdown = CancellationToken::new();
    let (store, token) = (SqliteStore::open_in_memory().unwrap(), shutdown.clone());
    let registry = Arc::new(Registry::default());
    let answerers = Answerers {
        logs: Arc::new(FakeLogs::default()),
        dumps: Arc::new(FakeDumps),
        appraiser: Arc::new(FakeAppraiser::default()),
    };
    let serving = tokio::spawn(async move {
        serve(&socket, store, Arc::default(), registry, |_| Vec::new(), answerers, token).await
    });
    (shutdown, serving)
}

async fn until_served(socket: &Path) {
    let answered = async {
        while UnixStream::connect(socket).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), answered).await.expect("the server answers");
}

#[tokio::test]
async fn the_socket_is_for_its_owner_and_goes_with_the_server() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("deep/er/operator.sock");
    let (shutdown, serving) = start(socket.clone());
    until_served(&socket).await;
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    shutdown.cancel();
    serving.await.unwrap().unwrap();
    assert!(!socket.exists());
}

#[tokio::test]
async fn a_socket_that_is_answered_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("operator.sock");
    let (shutdown, serving) = start(socket.clone());
    until_served(&socket).await;
    let refused = start(socket.clone()).1.await.unwrap().unwrap_err();
    assert!(matches!(refused, ServeError::InUse { .. }), "{refused}");
    until_served(&socket).await;
    shutdown.cancel();
    serving.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_that_nobody_answers_on_is_replaced_and_other_files_are_not() {
    let dir = TempDir::new().unwrap();
    let socket = dir.path().join("operator.sock");
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let (shutdown, serving) = start(socket.clone());
    until_served(&socket).await;
    shutdown.cancel();
    serving.await.unwrap().unwrap();

    std::fs::write(&socket, "precious").unwrap();
    let refused = start(socket.clone()).1.await.unwrap().unwrap_err();
    assert!(matches!(refused, ServeError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn whoever_waits_for_an_endpoint_does_not_hold_up_the_end() {
    let store = SqliteStore::open_in_memory().unwrap();
    let manifest = serde_json::json!({
        "apiVersion": "akash-redis.dev/v1alpha1", "kind": "RedisCluster", "metadata": {"name": "cache"}, "spec": {"nodes": 3}
    });
    store.apply(serde_json::from_value(manifest).unwrap()).await.unwrap();
    let shutdown = CancellationToken::new();
    let app = routes::App {
        store,
        status_cache: Arc::default(),
        registry: Arc::new(Registry::default()),
        validate: |_| Vec::new(),
        logs: Arc::new(FakeLogs::default()),
        dumps: Arc::new(FakeDumps),
        appraiser: Arc::new(FakeAppraiser::default()),
        shutdown: shutdown.clone(),
    };
    let request =
        Request::get("/v1alpha1/clusters/cache/endpoint?wait_s=60").body(Body::empty()).unwrap();
    let waiting = routes::router(app).oneshot(request);
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(30), async {
        tokio::join!(waiting, async { shutdown.cancel() })
    })
    .await
    .unwrap();
    assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
}
