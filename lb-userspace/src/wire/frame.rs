use crate::model::{NextHop, VlanTag};

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// What comes first in a frame, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub destination: [u8; 6],
    pub source: [u8; 6],
    /// VLAN tags, outermost first: protocol identifier and control information.
    pub tags: Vec<[u8; 4]>,
}

impl From<&NextHop> for Link {
    fn from(next_hop: &NextHop) -> Self {
        let tag = |tag: &VlanTag| {
            let ([a, b], [c, d]) = (tag.tpid.to_be_bytes(), tag.tci.to_be_bytes());
            [a, b, c, d]
        };
        Self {
            destination: next_hop.destination_mac.0,
            source: next_hop.source_mac.0,
            tags: next_hop.vlan.iter().map(tag).collect(),
        }
    }
}

/// An IP packet as a frame.
pub fn frame(link: &Link, packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(14 + 4 * link.tags.len() + packet.len());
    frame.extend(link.destination);
    frame.extend(link.source);
    frame.extend(link.tags.as_flattened());
    let ethertype = match packet.first().map(|byte| byte >> 4) {
        Some(6) => IPV6,
        _ => IPV4,
    };
    frame.extend(ethertype.to_be_bytes());
    frame.extend_from_slice(packet);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MacAddr;

    /// S-DSR-3: as the packet path writes it.
    #[test]
    fn addresses_tags_and_ethertype_come_first() {
        let mut next_hop = NextHop {
            ifindex: 3,
            interface: "eth1".to_owned(),
            source_mac: MacAddr([2, 0, 0, 0, 0, 1]),
            destination_mac: MacAddr([2, 0, 0, 0, 0, 2]),
            vlan: vec![],
            mtu: 1500,
        };
        let ends = [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        let plain = [&ends[..], &[0x08, 0x00, 0x45, 1]].concat();
        assert_eq!(frame(&(&next_hop).into(), &[0x45, 1]), plain);
        let tag = |tpid, tci| VlanTag { tpid, tci };
        next_hop.vlan = vec![tag(0x88a8, 0x2064), tag(0x8100, 7)];
        let tagged = [0x88, 0xa8, 0x20, 0x64, 0x81, 0x00, 0, 7, 0x86, 0xdd, 0x60];
        assert_eq!(
            frame(&(&next_hop).into(), &[0x60]),
            [&ends[..], &tagged].concat()
        );
    }
}
