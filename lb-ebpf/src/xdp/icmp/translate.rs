//! Rewrites an error, and its quote, to what its receiver knows of the connection (RFC 5508 §4.2,
//! §4.3).

use lb_common::checksum;

use super::{message::Messages, quote::Quote};
use crate::xdp::{family::Family, snat::Endpoint};

/// What an error is to say instead of what it says.
pub(super) struct Translation<F: Family> {
    /// Who sends the error.
    pub(super) sender: F::Address,
    /// Who gets it, which is whoever has sent the quoted packet.
    pub(super) source: Endpoint<F>,
    /// Whom the quoted packet was for.
    pub(super) destination: Endpoint<F>,
}

impl<F: Messages> Translation<F> {
    /// What the error says now.
    #[inline(always)]
    pub(super) fn of(quote: &Quote<'_, F>) -> Self {
        Self {
            sender: F::source(quote.message.ip),
            source: quote.source(),
            destination: quote.destination(),
        }
    }

    /// Rewrites the error, and takes a hop off it.
    ///
    /// Each checksum in the quote makes up for the changes that it covers itself, for which the
    /// error's own, which covers both, need then not be changed.
    #[inline(always)]
    pub(super) fn write(self, quote: &mut Quote<'_, F>) {
        let old = Self::of(quote);
        let source = address_difference::<F>(old.source.address, self.source.address);
        let destination =
            address_difference::<F>(old.destination.address, self.destination.address);
        let sender = address_difference::<F>(old.sender, self.sender);
        let outer = checksum::combine(sender, source);
        let inner = checksum::combine(source, destination);
        let ports = checksum::combine(
            port_difference(old.source.port, self.source.port),
            port_difference(old.destination.port, self.destination.port),
        );
        let tuple = checksum::combine(inner, ports);

        F::set_source(quote.ip, self.source.address, inner);
        F::set_destination(quote.ip, self.destination.address, 0);
        quote.tcp.source = self.source.port;
        quote.tcp.destination = self.destination.port;
        let mut message = tuple;
        if F::PSEUDO_HEADER {
            message = checksum::combine(message, outer);
        } else {
            message = checksum::combine(message, checksum::reverse(inner));
        }
        if let Some(tcp_checksum) = &mut quote.tcp_checksum {
            let checksum = u16::from_ne_bytes(**tcp_checksum);
            **tcp_checksum = checksum::update(checksum, tuple).to_ne_bytes();
            message = checksum::combine(message, checksum::reverse(tuple));
        }
        quote.message.icmp.update_checksum(message);

        let ip = &mut *quote.message.ip;
        F::set_source(ip, self.sender, outer);
        F::set_destination(ip, self.source.address, 0);
        F::decrement_hop_limit(ip);
    }
}

#[inline(always)]
fn address_difference<F: Messages>(old: F::Address, new: F::Address) -> u16 {
    checksum::combine(!checksum::fold(F::sum(old)), checksum::fold(F::sum(new)))
}

#[inline(always)]
fn port_difference(old: [u8; 2], new: [u8; 2]) -> u16 {
    checksum::combine(!u16::from_ne_bytes(old), u16::from_ne_bytes(new))
}
