//! What `store` promises, held by the file of a running operator and by the memory of a simulation;
//! `tests/kube` holds Kubernetes to the same.

use akash_redis::store::sqlite::SqliteStore;
use akash_redis::store::{EVENTS_KEPT, EVENTS_OF_A_REASON};

use crate::store_promises::{self, Fresh, promises};
use crate::world::clock::{Clock, OperatorClock};
use crate::world::memory::MemoryStore;

fn homes() -> [Fresh; 2] {
    let file = SqliteStore::open_in_memory().unwrap();
    let memory = MemoryStore::new(OperatorClock::new(Clock::start()));
    let (events, of_a_reason) = (EVENTS_KEPT as u64, EVENTS_OF_A_REASON);
    [
        Fresh { pair: [file.clone(), file.as_another_operator()], events, of_a_reason },
        Fresh { pair: [memory.clone(), memory.as_another_operator()], events, of_a_reason },
    ]
}

macro_rules! tests {
    ($($promise:ident,)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                for home in homes() {
                    store_promises::$promise(home).await;
                }
            }
        )*
    };
}

promises!(tests);
