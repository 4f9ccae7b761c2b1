//! A packet within another one, as a description that can be built, changed and built again.

use std::net::IpAddr;

use super::{
    ip::{Ipv4, Ipv6, Network},
    packet::Packet,
};

/// IP in IP, or IP in UDP in IP (GUE variant 1). Ethernet addresses, tags and padding are those of
/// the inner packet.
#[derive(Clone, Debug, PartialEq)]
pub struct Tunnelled {
    /// Its protocol is right unless a test changes it.
    pub outer: Network,
    pub gue: Option<Gue>,
    pub inner: Packet,
}

/// The UDP header of GUE.
#[derive(Clone, Debug, PartialEq)]
pub struct Gue {
    pub source: u16,
    pub destination: u16,
    /// Of header and data, where it is not to be what it should be.
    pub length: Option<u16>,
    /// As it stands in the header; most tunnels leave it out.
    pub checksum: u16,
    /// Between the UDP header and the inner packet: none in variant 1.
    pub header: Vec<u8>,
}

const UDP: u8 = 17;

impl Tunnelled {
    /// IP in IP.
    ///
    /// # Panics
    ///
    /// If the addresses are of different families.
    pub fn ipip(source: IpAddr, destination: IpAddr, inner: Packet) -> Self {
        let mut outer = Network::new(source, destination);
        set_protocol(
            &mut outer,
            match &inner.network {
                Network::V4(_) => 4,
                Network::V6(_) => 41,
            },
        );
        Self {
            outer,
            gue: None,
            inner,
        }
    }

    /// The same in UDP to this port.
    #[must_use]
    pub fn gue(mut self, destination: u16) -> Self {
        set_protocol(&mut self.outer, UDP);
        self.gue = Some(Gue {
            source: 0xc123,
            destination,
            length: None,
            checksum: 0,
            header: Vec::new(),
        });
        self
    }

    /// With the UDP header changed.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn udp(mut self, change: impl FnOnce(&mut Gue)) -> Self {
        change(self.gue.as_mut().expect("it is GUE"));
        self
    }

    /// With the outer IPv4 header changed.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn outer4(mut self, change: impl FnOnce(&mut Ipv4)) -> Self {
        match &mut self.outer {
            Network::V4(ip) => change(ip),
            Network::V6(_) => panic!("the outer packet is IPv6"),
        }
        self
    }

    /// With the outer IPv6 header changed.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    pub fn outer6(mut self, change: impl FnOnce(&mut Ipv6)) -> Self {
        match &mut self.outer {
            Network::V6(ip) => change(ip),
            Network::V4(_) => panic!("the outer packet is IPv4"),
        }
        self
    }

    pub fn build(&self) -> Vec<u8> {
        self.build_around(&self.inner.build_ip())
    }

    /// With these bytes in the place of the inner packet.
    pub fn build_around(&self, inner: &[u8]) -> Vec<u8> {
        let mut payload = Vec::new();
        if let Some(gue) = &self.gue {
            let length = 8 + gue.header.len() + inner.len();
            let length = gue.length.unwrap_or(length as u16);
            for word in [gue.source, gue.destination, length, gue.checksum] {
                payload.extend_from_slice(&word.to_be_bytes());
            }
            payload.extend_from_slice(&gue.header);
        }
        payload.extend_from_slice(inner);
        let mut frame = self.inner.link.build(self.outer.ether_type());
        frame.extend_from_slice(&self.outer.build(&payload));
        frame.extend_from_slice(&self.inner.padding);
        frame
    }
}

fn set_protocol(network: &mut Network, protocol: u8) {
    match network {
        Network::V4(ip) => ip.protocol = protocol,
        Network::V6(ip) => ip.protocol = protocol,
    }
}
