//! Takes the outer header away from between the Ethernet header and the inner packet.

use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;

use super::frame::{EthernetHeader, Frame, VlanHeader};

/// Removes the first `bytes` behind Ethernet header and VLAN tags, which keep their addresses and
/// tags (S-FWD-6) and announce `ether_type` (network order) now. `None`: the kernel refused, and
/// nothing has changed.
#[inline(always)]
pub(crate) fn strip(frame: &Frame<'_>, bytes: usize, ether_type: u16) -> Option<()> {
    let (destination, source) = (frame.ethernet.destination, frame.ethernet.source);
    let [outer, inner] = frame.tags();
    // SAFETY: the context is valid; every pointer into the packet is read anew below.
    if unsafe { bpf_xdp_adjust_head(frame.context, bytes as i32) } != 0 {
        return None;
    }
    let mut cursor = frame.reread();
    let ethernet = cursor.take::<EthernetHeader>()?;
    ethernet.destination = destination;
    ethernet.source = source;
    if frame.tag_count == 0 {
        ethernet.ether_type = ether_type;
        return Some(());
    }
    ethernet.ether_type = u16::from_ne_bytes(outer.tpid);
    let mut last = cursor.take::<VlanHeader>()?;
    last.tci = outer.tci;
    if frame.tag_count == 2 {
        last.ether_type = inner.tpid;
        last = cursor.take::<VlanHeader>()?;
        last.tci = inner.tci;
    }
    last.ether_type = ether_type.to_ne_bytes();
    Some(())
}
