//! The decapsulator of backends: strips the outer header of IP in IP and of GUE (variant 1) from
//! packets whose outer and inner destination are both addresses of this host. The host's own stack
//! then takes the inner packet as if it had come that way. Everything else passes as it came.
//!
//! ```text
//! frame ─ outer header ─ tunnel ─ inner header ─ checks ─ ECN ─ strip ─ XDP_PASS
//!           └ no tunnel, not ours: XDP_PASS         └ broken: XDP_DROP, counted
//! ```
//!
//! Checksums of transports are left to the host, which verifies the inner one: that covers every
//! byte that is delivered. So the checksum of GUE's UDP header is not verified, be it 0 or not
//! (RFC 6935 §5 lets a tunnel do without it on such grounds).
//!
//! On the host this binary is empty, as the others are.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch, core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "core::sync::atomic has no compare-and-swap for this target"
    )
)]

#[cfg(target_arch = "bpf")]
#[path = "../xdp/frame.rs"]
#[expect(dead_code, reason = "a balancer asks more of a frame")]
mod frame;
#[cfg(target_arch = "bpf")]
mod ip;
#[cfg(target_arch = "bpf")]
mod ipv4;
#[cfg(target_arch = "bpf")]
mod ipv6;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "../xdp/shared.rs"]
#[expect(dead_code, reason = "a balancer shares more with its daemon")]
mod shared;
#[cfg(target_arch = "bpf")]
mod strip;
#[cfg(target_arch = "bpf")]
mod tunnel;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
