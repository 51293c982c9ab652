//! A switch in this process for nodes that are far apart: each frame takes its time, or is lost.
//!
//! A node's `eth0` is then one end of a TAP device whose other end is here, and everything that is
//! no node is behind one more, which is a port of the bridge. The kernel's own way to do this is
//! not built into every kernel.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_tun::Tun;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::distance::{Distance, Paths};

/// The port behind which everything is that is no node.
const HUB: u8 = 1;
/// An Ethernet frame with a VLAN tag.
const LONGEST_FRAME: usize = 1518;
/// Where destination and sender stand in it.
const DESTINATION_LAST: usize = 5;
const HEADER: usize = 14;
/// Frames on their way to one port; further ones are lost, as in any full queue.
const QUEUE: usize = 50_000;

struct Arrival {
    at: Instant,
    number: u64,
    frame: Vec<u8>,
}

impl PartialEq for Arrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Arrival {}

impl PartialOrd for Arrival {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Arrival {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

struct Port {
    arrivals: mpsc::Sender<Arrival>,
    cut: Arc<AtomicBool>,
    _end: DropGuard,
}

struct State {
    paths: Paths,
    distance: Distance,
    ports: BTreeMap<u8, Port>,
    sent: u64,
}

/// The switch; its ports go when it is dropped.
pub struct Switch {
    state: Mutex<State>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("distance", &self.distance()).finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch without ports. What is random follows from `seed`.
    #[must_use]
    pub fn new(distance: Distance, seed: u64) -> Arc<Self> {
        let state = State { paths: Paths::new(seed), distance, ports: BTreeMap::new(), sent: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// Makes the TAP device `name` in this process's network namespace, as the port of the node
    /// with this last number of its address.
    ///
    /// # Errors
    /// There is no `/dev/net/tun`, or it may not be used.
    pub fn plug(self: &Arc<Self>, last: u8, name: &str) -> io::Result<()> {
        let device = Tun::builder().name(name).tap().build().map_err(io::Error::other)?.remove(0);
        let (arrivals, queue) = mpsc::channel(QUEUE);
        let (end, cut) = (CancellationToken::new(), Arc::<AtomicBool>::default());
        let device = Arc::new(device);
        tokio::spawn(end.clone().run_until_cancelled_owned(deliver(
            device.clone(),
            queue,
            cut.clone(),
        )));
        // Weak: the switch goes with its market, and these tasks with it.
        let switch = Arc::downgrade(self);
        let from_cut = cut.clone();
        tokio::spawn(end.clone().run_until_cancelled_owned(async move {
            let mut frame = [0; LONGEST_FRAME];
            // A device ends with the network namespace that it is in.
            while let Ok(length) = device.recv(&mut frame).await {
                let Some(switch) = switch.upgrade() else { return };
                if length >= HEADER && !from_cut.load(Ordering::Relaxed) {
                    switch.forward(last, &frame[..length]);
                }
            }
        }));
        let port = Port { arrivals, cut, _end: end.drop_guard() };
        self.lock().ports.insert(last, port);
        Ok(())
    }

    /// The port to everything that is no node: a TAP device for the bridge.
    ///
    /// # Errors
    /// There is no `/dev/net/tun`, or it may not be used.
    pub fn plug_hub(self: &Arc<Self>, name: &str) -> io::Result<()> {
        self.plug(HUB, name)
    }

    /// Takes a port away, with its device.
    pub fn unplug(&self, last: u8) {
        self.lock().ports.remove(&last);
    }

    /// Nothing passes to or from a node any more, or again.
    pub fn set_link(&self, last: u8, up: bool) {
        if let Some(port) = self.lock().ports.get(&last) {
            port.cut.store(!up, Ordering::Relaxed);
        }
    }

    /// How far apart nodes are.
    pub fn distance(&self) -> Distance {
        self.lock().distance
    }

    /// Moves the nodes, from the next frame on.
    pub fn set_distance(&self, distance: Distance) {
        self.lock().distance = distance;
    }

    fn forward(&self, from: u8, frame: &[u8]) {
        let now = Instant::now();
        let mut state = self.lock();
        let State { paths, distance, ports, sent } = &mut *state;
        let to_all = frame[0] & 1 == 1;
        let node = Some(frame[DESTINATION_LAST]).filter(|last| ports.contains_key(last));
        let to = node.unwrap_or(HUB);
        for (last, port) in ports.iter().filter(|(last, _)| **last != from) {
            if !to_all && *last != to {
                continue;
            }
            let Some(at) = paths.arrival(distance, from, *last, now) else { continue };
            *sent += 1;
            let arrival = Arrival { at, number: *sent, frame: frame.to_vec() };
            // A full queue loses frames.
            let _ = port.arrivals.try_send(arrival);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a port its frames at their times.
async fn deliver(device: Arc<Tun>, mut queue: mpsc::Receiver<Arrival>, cut: Arc<AtomicBool>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse(Arrival { at, .. })| *at);
        tokio::select! {
            arrival = queue.recv(), if waiting.len() < QUEUE => match arrival {
                Some(arrival) => waiting.push(Reverse(arrival)),
                None => return,
            },
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let Some(Reverse(arrival)) = waiting.pop() else { continue };
                if cut.load(Ordering::Relaxed) {
                    continue;
                }
                // A device that is down or gone takes nothing, as a cable without anybody at its end.
                let _ = device.send(&arrival.frame).await;
            }
        }
    }
}
