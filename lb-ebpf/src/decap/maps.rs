//! The maps, and typed access to them: what is unsafe about maps stays in this file.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use lb_common::decap::{Address4, Address6, MAX_ADDRESSES, Outcome, Settings};

/// The host's addresses; values mean nothing. Most hosts have a handful, so that entries are made
/// when they are needed.
#[map]
static ADDRESSES4: HashMap<Address4, u32> =
    HashMap::with_max_entries(MAX_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static ADDRESSES6: HashMap<Address6, u32> =
    HashMap::with_max_entries(MAX_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
/// Packets by [`Outcome`].
#[map]
static OUTCOMES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT, 0);

#[inline(always)]
pub(crate) fn is_own4(address: Address4) -> bool {
    ADDRESSES4.get_ptr(address).is_some()
}

#[inline(always)]
pub(crate) fn is_own6(address: Address6) -> bool {
    ADDRESSES6.get_ptr(address).is_some()
}

/// Whether this destination port, in network order, is that of GUE.
#[inline(always)]
pub(crate) fn is_gue_port(port: [u8; 2]) -> bool {
    SETTINGS
        .get(0)
        .is_some_and(|settings| settings.gue_port == port && port != [0; 2])
}

#[inline(always)]
pub(crate) fn count(outcome: Outcome) {
    if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: this CPU's own counter; the program is not preempted by another XDP program.
        unsafe { *counter += 1 };
    }
}
