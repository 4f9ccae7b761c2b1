//! The kernel's routing table, for the packets whose way the daemon does not know.

use core::mem;

use aya_ebpf::{
    bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as Parameters},
    helpers::generated::bpf_fib_lookup,
};
use lb_common::records::{Hop, Mac};

use super::{family::Family, frame::Frame};

const TCP: u8 = 6;

/// Where the kernel would send a packet of `length` bytes from `source` to `destination`, if it knows the neighbour.
#[inline(always)]
pub(crate) fn lookup<F: Family>(
    frame: &Frame<'_>,
    length: usize,
    source: F::Address,
    destination: F::Address,
) -> Option<Hop> {
    // SAFETY: plain integers, for which zero is a value.
    let mut parameters: Parameters = unsafe { mem::zeroed() };
    parameters.family = F::AF;
    parameters.l4_protocol = TCP;
    parameters.__bindgen_anon_1.tot_len = length as u16;
    parameters.ifindex = frame.ingress_ifindex();
    parameters.__bindgen_anon_3.ipv6_src = F::fib_words(source);
    parameters.__bindgen_anon_4.ipv6_dst = F::fib_words(destination);
    // SAFETY: context and parameters are valid, and the length is the parameters' own.
    let result = unsafe {
        bpf_fib_lookup(
            frame.context.cast(),
            &raw mut parameters,
            size_of::<Parameters>() as i32,
            0,
        )
    };
    if result != i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
        return None;
    }
    Some(Hop::new(
        by_words(&parameters.dmac),
        by_words(&parameters.smac),
        parameters.ifindex,
    ))
}

/// A MAC address of the parameters, read in pieces that are aligned on the stack: the compiler,
/// which may read packets unaligned, would read it so there too, and the verifier refuses that.
#[inline(always)]
fn by_words(mac: &[u8; 6]) -> Mac {
    let words = core::ptr::from_ref(mac).cast::<u16>();
    let word = |n| {
        // SAFETY: three pairs of bytes lie within the array, which is at an even offset of the
        // parameters.
        unsafe { core::ptr::read_volatile(words.add(n)) }
    };
    Mac::of_pairs([word(0), word(1), word(2)])
}
