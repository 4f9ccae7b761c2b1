//! The frame's way out: Ethernet addresses, VLAN tags, and the interface.

use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_xdp_adjust_head};
use lb_common::{reason::Reason, records::Hop};
use network_types::eth::EthHdr;

use super::{
    Stop,
    frame::{Frame, VlanHeader},
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
    let drop = |reason| Stop::Drop { service, reason };
    if hop.tag_count != frame.tag_count {
        let grow = (i32::from(hop.tag_count) - i32::from(frame.tag_count)) * TAG;
        // SAFETY: the context is valid; every pointer into the packet is read anew below.
        if unsafe { bpf_xdp_adjust_head(frame.context, -grow) } != 0 {
            return Err(drop(Reason::NoHeadroom));
        }
    }
    write_header(frame, &hop).ok_or(drop(Reason::NoHeadroom))?;
    if hop.ifindex == frame.ingress_ifindex() {
        return Ok(xdp_action::XDP_TX);
    }
    maps::redirect(hop.ifindex).map_err(|_| drop(Reason::NoNextHop))
}

/// Bytes of a VLAN tag.
const TAG: i32 = size_of::<VlanHeader>() as i32;

/// The Ethernet header with the hop's tags (S-FWD-6), in front of the network header.
#[inline(always)]
fn write_header(frame: &Frame<'_>, hop: &Hop) -> Option<()> {
    let mut cursor = frame.reread();
    let ethernet = cursor.take::<EthHdr>()?;
    ethernet.dst_addr = hop.destination;
    ethernet.src_addr = hop.source;
    let [outer, inner] = hop.tags;
    if hop.tag_count == 0 {
        ethernet.ether_type = frame.ether_type();
        return Some(());
    }
    ethernet.ether_type = u16::from_ne_bytes(outer.tpid);
    let mut last = cursor.take::<VlanHeader>()?;
    last.tci = outer.tci;
    if hop.tag_count == 2 {
        last.ether_type = inner.tpid;
        last = cursor.take::<VlanHeader>()?;
        last.tci = inner.tci;
    }
    last.ether_type = frame.ether_type().to_ne_bytes();
    Some(())
}
