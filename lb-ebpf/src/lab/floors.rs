//! The least that a program can do with a packet: what every other figure is compared with.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{checksum, lab::Dnat};

#[xdp(frags)]
pub(crate) fn floor_drop(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

#[xdp(frags)]
pub(crate) fn floor_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Sends a frame back to where it came from.
#[xdp(frags)]
pub(crate) fn floor_swap_tx(ctx: XdpContext) -> u32 {
    let addresses = ctx.data() as *mut [[u16; 3]; 2];
    if addresses.wrapping_add(1) as usize > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: within the packet, which nobody else looks at, and frames begin at even addresses.
    let addresses = unsafe { &mut *addresses };
    let [destination, source] = *addresses;
    *addresses = [source, destination];
    xdp_action::XDP_TX
}

/// An IPv4 frame without tags and options, as the generator makes it.
#[repr(C)]
struct Frame4 {
    destination_mac: [u16; 3],
    source_mac: [u16; 3],
    before_checksum: [u16; 6],
    ip_checksum: u16,
    source: [u16; 2],
    destination: [u8; 4],
    source_port: u16,
    destination_port: [u8; 2],
    before_tcp_checksum: [u16; 6],
    tcp_checksum: u16,
}

const _: () = assert!(core::mem::offset_of!(Frame4, tcp_checksum) == 50);

/// The least that translates a destination: all that it needs to know are constants.
#[xdp(frags)]
pub(crate) fn floor_dnat(ctx: XdpContext) -> u32 {
    let frame = ctx.data() as *mut Frame4;
    if frame.wrapping_add(1) as usize > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    // SAFETY: as above.
    let frame = unsafe { &mut *frame };
    frame.destination_mac = [u16::from_ne_bytes([2, 0]), 0, u16::from_ne_bytes([0, 3])];
    frame.source_mac = [u16::from_ne_bytes([2, 0]), 0, u16::from_ne_bytes([0, 1])];
    (frame.destination, frame.destination_port) = Dnat::TO;
    frame.ip_checksum = checksum::update(frame.ip_checksum, Dnat::ADDRESS_DIFFERENCE);
    frame.tcp_checksum = checksum::update(frame.tcp_checksum, Dnat::DIFFERENCE);
    xdp_action::XDP_TX
}
