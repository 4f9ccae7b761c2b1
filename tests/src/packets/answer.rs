//! What a refused packet is answered with, built from nothing.

use std::net::IpAddr;

use lb_common::reason::Reason;

use super::{
    checksum::checksum,
    ip::{Network, pseudo_header},
    packet::{Link, Packet, flags},
};

/// A frame that is sent back, and what it is counted as beside the reason of the refusal.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub counted: Reason,
    pub frame: Vec<u8>,
}

/// What an ICMP error about a packet says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum IcmpError {
    PortUnreachable,
    /// The MTU in bytes.
    TooBig(u16),
}

impl Packet {
    /// The reset for this segment (RFC 9293 §3.10.7.1).
    pub fn reset(&self) -> Answer {
        let tcp = &self.tcp;
        let bit = |flag| u32::from(tcp.flags & flag != 0);
        let length = tcp.payload.len() as u32 + bit(flags::SYN) + bit(flags::FIN);
        let reset = Self::new(self.destination(), self.source())
            .link(self.link_back())
            .tcp(|reset| {
                reset.window = 0;
                if tcp.flags & flags::ACK != 0 {
                    reset.flags = flags::RST;
                    reset.sequence = tcp.acknowledgement;
                    reset.acknowledgement = 0;
                } else {
                    reset.flags = flags::RST | flags::ACK;
                    reset.sequence = 0;
                    reset.acknowledgement = tcp.sequence.wrapping_add(length);
                }
            })
            .plain();
        Answer {
            counted: Reason::RstSent,
            frame: reset.build(),
        }
    }

    /// An ICMP error about this packet, which it quotes up to `max_quote` bytes.
    pub fn icmp_error(&self, error: IcmpError, max_quote: usize) -> Answer {
        let packet = self.build_ip();
        let quote = &packet[..packet.len().min(max_quote) / 4 * 4];
        let source = self.destination().ip();
        let (kind, code, parameter) = match (source, error) {
            (IpAddr::V4(_), IcmpError::PortUnreachable) => (3, 3, 0),
            (IpAddr::V4(_), IcmpError::TooBig(mtu)) => (3, 4, mtu),
            (IpAddr::V6(_), IcmpError::PortUnreachable) => (1, 4, 0),
            (IpAddr::V6(_), IcmpError::TooBig(mtu)) => (2, 0, mtu),
        };
        let mut message = vec![kind, code, 0, 0];
        message.extend_from_slice(&u32::from(parameter).to_be_bytes());
        message.extend_from_slice(quote);
        let mut answer = Self::new(self.destination(), self.source())
            .link(self.link_back())
            .plain();
        let check = match &mut answer.network {
            Network::V4(ip) => {
                ip.protocol = 1;
                ip.service_type = 0xc0;
                checksum(&[&message])
            }
            Network::V6(ip) => {
                ip.protocol = 58;
                let (from, to) = (ip.source.octets(), ip.destination.octets());
                let mut pseudo = pseudo_header(&from, &to, message.len() as u32);
                *pseudo.last_mut().expect("it ends with the protocol") = 58;
                checksum(&[&pseudo, &message])
            }
        };
        message[2..4].copy_from_slice(&check.to_be_bytes());
        Answer {
            counted: Reason::IcmpSent,
            frame: [
                answer.link.build(answer.network.ether_type()),
                answer.network.build(&message),
            ]
            .concat(),
        }
    }

    fn link_back(&self) -> Link {
        Link {
            to: self.link.from,
            from: self.link.to,
            tags: self.link.tags.clone(),
        }
    }

    /// With an identification and a flow label of 0.
    fn plain(mut self) -> Self {
        match &mut self.network {
            Network::V4(ip) => ip.identification = 0,
            Network::V6(ip) => ip.flow_label = 0,
        }
        self
    }
}
