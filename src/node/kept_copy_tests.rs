//! What a node keeps for an operator that lost its store.

use super::state_file::KeptCopy;
use super::tests::{TestNode, usual_settings};
use crate::model::kept_copy::{LARGEST, hash};
use crate::wire::akash_redis::agent::v1 as wire;
use wire::command_request::Command;

fn settings(copy: Option<Vec<u8>>) -> Command {
    let Command::Configure(settings) = usual_settings() else { panic!("settings") };
    let kept_copy = copy.map(|content| wire::KeptCopy { content, signature: vec![1, 254] });
    Command::Configure(wire::Configure { kept_copy, ..settings })
}

#[tokio::test]
async fn the_last_copy_is_kept_beside_the_memory_and_outlives_the_agent() {
    let node = TestNode::start(0);
    assert_eq!(node.running().await.kept_copy, Some(String::new()), "it has none yet");
    assert_eq!(node.node.copy(), None);
    for text in ["one", "two"] {
        let state = node.command(1, settings(Some(text.into()))).await.unwrap();
        assert_eq!(state.kept_copy, Some(hash(text.as_bytes())));
    }
    // Settings without one, and one that no operator sends, leave it as it is.
    node.command(1, settings(None)).await.unwrap();
    node.command(1, settings(Some(vec![b'x'; LARGEST + 1]))).await.unwrap();
    node.command(1, settings(Some(vec![255, 254]))).await.unwrap();
    let kept = node.node.copy().as_ref().map(KeptCopy::to_wire);
    let two = wire::KeptCopy { content: b"two".to_vec(), signature: vec![1, 254] };
    assert_eq!(kept, Some(two.clone()));
    let dir = node.stop().await;
    let again = TestNode::start_in(dir, 0);
    assert_eq!(again.running().await.kept_copy, Some(hash(b"two")));
    assert_eq!(again.node.copy().as_ref().map(KeptCopy::to_wire), Some(two));
    again.stop().await;
}
