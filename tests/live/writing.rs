//! What an application that writes all the time can tell.

use akash_redis::cli::demo::writer::{Phase, Writer};

use crate::stage::until;

/// Acknowledged writes that show that writes go on.
const SOME: usize = 100;

pub async fn writes_go_on(writer: &Writer) {
    let before = writer.acknowledged();
    until("acknowledged writes", async || writer.acknowledged() >= before + SOME).await;
}

/// Writes go on, and nothing of what was acknowledged since the last look is missing.
pub async fn nothing_lost(writer: &Writer, what: &str) {
    writes_go_on(writer).await;
    let phase: Phase = writer.end().await.unwrap();
    println!("{what}: {phase:?}");
    assert_eq!(phase.lost, 0, "{what}: {phase:?}");
    writer.begin();
    // Before the next change: what is looked at has to have writes before and after it.
    writes_go_on(writer).await;
}
