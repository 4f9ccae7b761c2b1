//! The frame's way out: Ethernet addresses, VLAN tags, and the interface.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use lb_common::{reason::Reason, records::Hop};
use network_types::eth::EthHdr;

use super::{
    Stop,
    frame::{Cursor, Frame, VlanHeader},
    maps,
};

/// A way out for a packet of this service.
pub(crate) struct Way {
    pub(crate) service: u16,
    pub(crate) hop: Hop,
}

/// Sends a frame whose packet has been rewritten.
#[inline(always)]
pub(crate) fn emit(frame: &Frame<'_>, Way { service, hop }: Way) -> Result<u32, Stop> {
    let no_headroom = || Stop::drop(service, Reason::NoHeadroom);
    make_room(frame, &hop, 0).ok_or_else(no_headroom)?;
    write_link(frame, &hop, frame.ether_type()).ok_or_else(no_headroom)?;
    leave(frame, service, &hop)
}

/// Sends a frame with something new between its Ethernet and its network header: `ether_type` says
/// what, in network order, `bytes` how long it is, and `write` writes it.
#[inline(always)]
pub(crate) fn emit_wrapped<'p>(
    frame: &Frame<'p>,
    Way { service, hop }: Way,
    ether_type: u16,
    bytes: usize,
    write: impl FnOnce(Cursor<'p>) -> Option<()>,
) -> Result<u32, Stop> {
    let no_headroom = || Stop::drop(service, Reason::NoHeadroom);
    make_room(frame, &hop, bytes).ok_or_else(no_headroom)?;
    let network = write_link(frame, &hop, ether_type).ok_or_else(no_headroom)?;
    write(network).ok_or_else(no_headroom)?;
    leave(frame, service, &hop)
}

/// Bytes of a VLAN tag.
const TAG: i32 = size_of::<VlanHeader>() as i32;

/// Moves the frame's head so that the hop's tags and `bytes` more fit in front of the network header.
#[inline(always)]
fn make_room(frame: &Frame<'_>, hop: &Hop, bytes: usize) -> Option<()> {
    let tags = i32::from(hop.tag_count) - i32::from(frame.tag_count);
    let grow = tags * TAG + bytes as i32;
    // SAFETY: the context is valid; every pointer into the packet is read anew behind this.
    let moved = grow == 0 || unsafe { bpf_xdp_adjust_head(frame.context, -grow) } == 0;
    moved.then_some(())
}

/// Makes the frame shorter by `bytes` at its end. Every pointer into it has to be read anew behind
/// this.
#[inline(always)]
pub(crate) fn cut(frame: &Frame<'_>, bytes: usize) -> Option<()> {
    // SAFETY: as in `make_room`; the helper checks the length.
    let cut = bytes == 0 || unsafe { bpf_xdp_adjust_tail(frame.context, -(bytes as i32)) } == 0;
    cut.then_some(())
}

/// The Ethernet header with the hop's tags (S-FWD-6); what is behind it.
#[inline(always)]
fn write_link<'p>(frame: &Frame<'p>, hop: &Hop, ether_type: u16) -> Option<Cursor<'p>> {
    let mut cursor = frame.reread();
    let ethernet = cursor.take::<EthHdr>()?;
    ethernet.dst_addr = hop.destination;
    ethernet.src_addr = hop.source;
    let [outer, inner] = hop.tags;
    if hop.tag_count == 0 {
        ethernet.ether_type = ether_type;
        return Some(cursor);
    }
    ethernet.ether_type = u16::from_ne_bytes(outer.tpid);
    let mut last = cursor.take::<VlanHeader>()?;
    last.tci = outer.tci;
    if hop.tag_count == 2 {
        last.ether_type = inner.tpid;
        last = cursor.take::<VlanHeader>()?;
        last.tci = inner.tci;
    }
    last.ether_type = ether_type.to_ne_bytes();
    Some(cursor)
}

/// Out through the hop's interface.
#[inline(always)]
fn leave(frame: &Frame<'_>, service: u16, hop: &Hop) -> Result<u32, Stop> {
    if hop.ifindex == frame.ingress_ifindex() {
        return Ok(xdp_action::XDP_TX);
    }
    maps::redirect(hop.ifindex).map_err(|_| Stop::drop(service, Reason::NoNextHop))
}
