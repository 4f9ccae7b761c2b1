//! Out with it (§5): Ethernet addresses, tags and verdict.

use lb_userspace::model::NextHop;

use super::{Fate, records::LastHop, segment::Link};

/// A way out.
pub(super) struct Hop {
    link: Link,
    ifindex: u32,
}

impl Hop {
    pub(super) fn next(next_hop: &NextHop) -> Self {
        let mut tags = [None; 2];
        for (tag, wanted) in tags.iter_mut().zip(&next_hop.vlan) {
            let [a, b] = wanted.tpid.to_be_bytes();
            let [c, d] = wanted.tci.to_be_bytes();
            *tag = Some([a, b, c, d]);
        }
        Self {
            link: Link {
                to: next_hop.destination_mac.0,
                from: next_hop.source_mac.0,
                tags,
            },
            ifindex: next_hop.ifindex,
        }
    }

    /// Back where a client's packet came from.
    pub(super) fn last(hop: &LastHop) -> Self {
        Self::back(&hop.link, hop.ifindex)
    }

    /// To whoever sent a frame.
    pub(super) fn back(link: &Link, ifindex: u32) -> Self {
        Self {
            link: Link {
                to: link.from,
                from: link.to,
                tags: link.tags,
            },
            ifindex,
        }
    }
}

/// The frame around an IP packet that came in by an interface, and where it goes.
pub(super) fn emit(came_by: u32, hop: &Hop, ipv6: bool, packet: &[u8]) -> Fate {
    let frame = frame(&hop.link, ipv6, packet);
    if hop.ifindex == came_by {
        Fate::Transmit(frame)
    } else {
        Fate::Redirect(frame)
    }
}

pub(super) fn frame(link: &Link, ipv6: bool, packet: &[u8]) -> Vec<u8> {
    let mut frame = [link.to, link.from].concat();
    for tag in link.tags.iter().flatten() {
        frame.extend_from_slice(tag);
    }
    frame.extend_from_slice(if ipv6 { &[0x86, 0xdd] } else { &[0x08, 0x00] });
    frame.extend_from_slice(packet);
    frame
}
