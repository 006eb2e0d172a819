//! How many connections, or bodies on their way, there may be, in all and from one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::ClientKey;

/// Room for connections, or for bodies.
#[derive(Debug)]
pub(super) struct Slots {
    most: u32,
    most_per_client: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: u32,
    by_client: HashMap<ClientKey, u32>,
}

/// The place of one of them, given back on drop.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    client: ClientKey,
}

impl Slots {
    pub(super) fn new(most: NonZeroU32, most_per_client: NonZeroU32) -> Arc<Self> {
        let (most, most_per_client) = (most.get(), most_per_client.get());
        Arc::new(Self { most, most_per_client, taken: Mutex::default() })
    }

    /// Takes a slot; `None` where all are taken, or all that this client may have.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let client = ClientKey::of(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let by_client = taken.by_client.get(&client).copied().unwrap_or(0);
        if taken.all >= self.most || by_client >= self.most_per_client {
            return None;
        }
        taken.all += 1;
        taken.by_client.insert(client, by_client + 1);
        Some(Slot { slots: Arc::clone(self), client })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(1);
        match taken.by_client.get_mut(&self.client) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_by_client_and_in_all_and_come_back() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let slots = Slots::new(number(3), number(2));
        let address = |last| IpAddr::from([192, 0, 2, last]);
        let first = slots.take(address(1)).unwrap();
        let _second = slots.take(address(1)).unwrap();
        assert!(slots.take(address(1)).is_none(), "a third of one client");
        let _other = slots.take(address(2)).unwrap();
        assert!(slots.take(address(3)).is_none(), "a fourth in all");
        drop(first);
        let again = slots.take(address(1)).unwrap();
        drop(again);
        assert_eq!(slots.taken.lock().unwrap().all, 2);
        assert_eq!(slots.taken.lock().unwrap().by_client.len(), 2);
    }
}
