//! The frame's way out: Ethernet addresses, VLAN tags, and the interface.

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail},
};
use lb_common::{reason::Reason, records::Hop};

use super::{
    Stop,
    frame::{Cursor, EthernetHeader, Frame, VlanHeader},
    maps,
};

/// A way out for a packet of this service.
pub(crate) struct Way {
    pub(crate) service: u16,
    pub(crate) hop: Hop,
}

/// Sends a frame whose packet has been rewritten.
#[inline(always)]
pub(crate) fn emit(frame: &Frame<'_>, way: Way) -> Result<u32, Stop> {
    address(frame, &way, frame.ether_type(), 0)?;
    leave(frame, &way)
}

/// Gives a frame its Ethernet header, with room for `bytes` behind it, which are the caller's to write
/// through the cursor before the frame [leaves](leave): `ether_type` says what they are, in network
/// order.
#[inline(always)]
pub(crate) fn address<'p>(
    frame: &Frame<'p>,
    way: &Way,
    ether_type: u16,
    bytes: usize,
) -> Result<Cursor<'p>, Stop> {
    let moved = make_room(frame, &way.hop, bytes);
    let behind = moved.and_then(|()| write_link(frame, &way.hop, ether_type));
    behind.ok_or(Stop::drop(way.service, Reason::NoHeadroom))
}

/// Bytes of a VLAN tag.
const TAG: i32 = size_of::<VlanHeader>() as i32;

/// Moves the frame's head so that the hop's tags and `bytes` more fit in front of the network header.
#[inline(always)]
fn make_room(frame: &Frame<'_>, hop: &Hop, bytes: usize) -> Option<()> {
    let tags = i32::from(hop.tag_count()) - i32::from(frame.tag_count);
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

/// Exchanges the Ethernet addresses of a frame that goes back to its sender.
#[inline(always)]
pub(crate) fn turn_back(frame: &Frame<'_>) -> Option<()> {
    let ethernet = frame.reread().take::<EthernetHeader>()?;
    (ethernet.destination, ethernet.source) = (ethernet.source, ethernet.destination);
    Some(())
}

/// The Ethernet header with the hop's tags (S-FWD-6); what is behind it.
#[inline(always)]
fn write_link<'p>(frame: &Frame<'p>, hop: &Hop, ether_type: u16) -> Option<Cursor<'p>> {
    let mut cursor = frame.reread();
    let ethernet = cursor.take::<EthernetHeader>()?;
    ethernet.destination = hop.destination().pairs();
    ethernet.source = hop.source().pairs();
    let [outer, inner] = hop.tags();
    if hop.tag_count() == 0 {
        ethernet.ether_type = ether_type;
        return Some(cursor);
    }
    ethernet.ether_type = u16::from_ne_bytes(outer.tpid);
    let mut last = cursor.take::<VlanHeader>()?;
    last.tci = outer.tci;
    if hop.tag_count() == 2 {
        last.ether_type = inner.tpid;
        last = cursor.take::<VlanHeader>()?;
        last.tci = inner.tci;
    }
    last.ether_type = ether_type.to_ne_bytes();
    Some(cursor)
}

/// Out through the hop's interface.
#[inline(always)]
pub(crate) fn leave(frame: &Frame<'_>, Way { service, hop }: &Way) -> Result<u32, Stop> {
    if hop.ifindex() == frame.ingress_ifindex() {
        return Ok(xdp_action::XDP_TX);
    }
    maps::redirect(hop.ifindex()).map_err(|_| Stop::drop(*service, Reason::NoNextHop))
}
