//! The connection table: one cache line a bucket, one record for both directions.
//!
//! A bucket holds four records. Which buckets may hold a flow is chosen by a keyed hash of its key:
//! the client's address and port and the service's id. The service stands for the virtual address
//! and port, so the key holds the whole tuple (S-NAT-8). Of these buckets the first that has room
//! is taken, so that most packets touch one line ([`insert`]).
//!
//! # Who may write what
//!
//! Several CPUs and the daemon work on a bucket at once, without locks. A record is a key of one
//! or more words and a value of one word ([`FlowValue`]). Whoever takes a record over
//!
//! 1. replaces the value it saw by [`State::CLAIMED`], by compare-and-swap: if the record was
//!    refreshed, or taken by another, the swap fails and nothing has happened;
//! 2. writes the key;
//! 3. writes the new value, whose generation is one higher.
//!
//! A reader loads the value, then the key, then the value again, and follows the record only if
//! the key is its own, both values are live, and their generation is the same. A record changes
//! hands only through a claimed value and the next generation, so equal generations on both sides
//! of the key mean that the key belongs to the value: a racing reader can at worst miss. The four
//! bits of generation would have to go round sixteen times between two loads of one reader to
//! deceive it. `loom` runs this code through every interleaving in the tests of this module.
//!
//! This needs loads and stores that are not reordered among their own kind (acquire and release,
//! which x86-64 gives for free); [`Word`] says so.

mod bucket;
mod key;
mod table;
mod value;

pub use bucket::{Bucket, Bucket4, Bucket6, Found, RECORDS, insert_vacant};
pub use key::{FlowKey4, FlowKey6};
pub use table::{CANDIDATES, Candidates, Table, find, insert, overflow_words, refresh, request};
pub use value::{FlowValue, Tick};

use crate::tcp::State;

/// A 64-bit word that other CPUs and the daemon read and write at the same time.
pub trait Word {
    /// Loads with acquire ordering.
    fn load(&self) -> u64;
    /// Stores with release ordering.
    fn store(&self, value: u64);
    /// Replaces `current` by `new` with a full barrier; whether it did.
    fn replace(&self, current: u64, new: u64) -> bool;
    /// Sets these bits, with a full barrier.
    fn set(&self, bits: u64);

    /// Asks for the cache line that a value ([`FlowValue`]) stands in, to read and to write, and does
    /// not wait for it. What the word says stays the same.
    ///
    /// This is a prefetch, for which BPF has no instruction: a store to the byte of the value that is
    /// always 0. A CPU goes on behind a store that has not arrived yet, while it does not get far
    /// behind a load.
    #[inline(always)]
    fn request(&self) {}

    /// The same number, of which the compiler no longer knows anything: it then computes with it
    /// instead of branching.
    #[inline(always)]
    fn opaque(number: u64) -> u64 {
        number
    }

    /// The same number, of which the kernel's verifier no longer knows anything: it then walks what
    /// follows once and not once for every number that is possible. `noise` is anything that was
    /// read from a map.
    #[inline(always)]
    fn blur(number: u64, _noise: u64) -> u64 {
        number
    }
}

#[cfg(not(any(target_arch = "bpf", loom)))]
impl Word for core::sync::atomic::AtomicU64 {
    fn load(&self) -> u64 {
        self.load(core::sync::atomic::Ordering::Acquire)
    }

    fn store(&self, value: u64) {
        self.store(value, core::sync::atomic::Ordering::Release);
    }

    fn replace(&self, current: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::{Acquire, SeqCst};
        self.compare_exchange(current, new, SeqCst, Acquire).is_ok()
    }

    fn set(&self, bits: u64) {
        self.fetch_or(bits, core::sync::atomic::Ordering::SeqCst);
    }
}

/// Ends a record that has been idle for too long; whether it did. For the daemon's sweep.
///
/// A packet that refreshes the record at the same moment wins.
pub fn expire<W: Word>(value: &W, now: Tick) -> bool {
    let seen = FlowValue::from_bits(value.load());
    seen.state().is_live()
        && seen.is_expired(now)
        && value.replace(seen.bits(), seen.with_state(State::FREE).bits())
}

/// Marks a record as ended by the load balancer until `expires`; whether it did. For the daemon:
/// from here on either side is answered with a RST (S-CT-6).
///
/// `seen` is the value that the caller has judged the record by, with its key: a packet that
/// changes the record at the same moment wins, and so does a flow that takes its place. Half-open
/// records are not ended, they give way by themselves.
pub fn end<W: Word>(value: &W, seen: FlowValue, expires: Tick) -> bool {
    let state = seen.state();
    state.is_live()
        && !state.is_half_open()
        && state.bits() < State::ENDED.bits()
        && value.replace(seen.bits(), seen.renewed(State::ENDED, expires).bits())
}

#[cfg(test)]
mod test_table;
#[cfg(test)]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
