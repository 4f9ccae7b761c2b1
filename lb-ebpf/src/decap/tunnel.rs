//! What is behind the outer header: an IP packet (RFC 2003, RFC 4213, RFC 2473), or one in UDP (GUE
//! variant 1, draft-ietf-intarea-gue §4).

use lb_common::decap::Outcome;
use network_types::udp::UdpHdr;

use super::{
    frame::{Cursor, Header},
    ip::{self, Ip, Outer},
    ipv4::Ipv4,
    ipv6::Ipv6,
    maps,
    xdp::Stop,
};

// SAFETY: byte arrays only.
unsafe impl Header for UdpHdr {}

// Protocol numbers.
const IPV4: u8 = 4;
const UDP: u8 = 17;
const IPV6: u8 = 41;

/// GUE: the first two bits are the variant, and in variant 1 the first of the IP version.
const VARIANT_1: u8 = 0b01;

/// Whether it holds a packet is not known yet.
pub(crate) struct Tunnel<'p> {
    /// IP version that the inner packet is said to have.
    pub(crate) version: u8,
    pub(crate) body: Cursor<'p>,
    /// Bytes between the outer IP header and the inner one.
    pub(crate) header_length: usize,
    /// How it is counted when it has been stripped.
    pub(crate) outcome: Outcome,
    /// Length field of the UDP header; `None`: there is no such header.
    udp_length: Option<usize>,
}

/// The tunnel that has its end on this host.
#[inline(always)]
pub(crate) fn recognise<'p, O: Ip>(outer: &Outer<'p, O>) -> Result<Tunnel<'p>, Stop> {
    match O::protocol(outer.header) {
        IPV4 => ipip(outer, Ipv4::VERSION),
        IPV6 => ipip(outer, Ipv6::VERSION),
        UDP => gue(outer),
        _ => Err(Stop::NotOurs),
    }
}

#[inline(always)]
fn ipip<'p, O: Ip>(outer: &Outer<'p, O>, version: u8) -> Result<Tunnel<'p>, Stop> {
    if !O::is_own(outer.header) {
        return Err(Stop::NotOurs);
    }
    if outer.is_cut_off() {
        return Err(Outcome::OuterHeader.into());
    }
    if O::is_fragment(outer.header) {
        return Err(Outcome::Fragment.into());
    }
    Ok(Tunnel {
        version,
        body: outer.body(),
        header_length: 0,
        outcome: Outcome::Ipip,
        udp_length: None,
    })
}

/// The port comes first, because most UDP is for other ones and then costs no lookup of addresses.
#[inline(always)]
fn gue<'p, O: Ip>(outer: &Outer<'p, O>) -> Result<Tunnel<'p>, Stop> {
    // In all fragments but the first, what stands there is no port.
    if outer.is_cut_off() || O::is_fragment(outer.header) {
        return Err(Stop::NotOurs);
    }
    let mut body = outer.body();
    let udp = body.take::<UdpHdr>().ok_or(Stop::NotOurs)?;
    if !maps::is_gue_port(udp.dst) || !O::is_own(outer.header) {
        return Err(Stop::NotOurs);
    }
    let mut first = body;
    let first = *first.take::<u8>().ok_or(Outcome::GueVariant)?;
    if first >> 6 != VARIANT_1 {
        return Err(Outcome::GueVariant.into());
    }
    Ok(Tunnel {
        version: ip::version(first),
        body,
        header_length: size_of::<UdpHdr>(),
        outcome: Outcome::Gue,
        udp_length: Some(u16::from_be_bytes(udp.len).into()),
    })
}

impl Tunnel<'_> {
    /// Bytes that the tunnel leaves to the inner packet, of `inside` behind the outer IP header. A
    /// datagram may be shorter than the packet that it comes in, and never longer.
    #[inline(always)]
    pub(crate) fn check(&self, inside: usize) -> Result<usize, Outcome> {
        let Some(length) = self.udp_length else {
            return Ok(inside);
        };
        if length > inside {
            return Err(Outcome::OuterLength);
        }
        length
            .checked_sub(size_of::<UdpHdr>())
            .ok_or(Outcome::OuterLength)
    }
}
