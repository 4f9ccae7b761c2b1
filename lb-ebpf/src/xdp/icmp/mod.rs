//! ICMP (RFC 792, RFC 4443): echo requests to a service's address, and errors about what balanced
//! connections have sent.
//!
//! An error quotes the packet that it is about, and goes to whoever sent that. What the quote says
//! of addresses and ports therefore has to become what the receiver knows of the connection, as
//! it does in the connection's own packets but the other way round (RFC 5508 §4): an error that
//! comes from the clients' side quotes a packet *of* the backend, as the client has seen it.
//!
//! Nothing here changes a connection's record, or its expiry: whoever sees a connection's
//! packets, or guesses them, can make errors about it (S-ICMP-3; RFC 5508 REQ-6, RFC 5927).

mod echo;
mod message;
mod quote;
mod towards_backend;
mod towards_client;
mod translate;

use aya_ebpf::programs::XdpContext;

use self::{
    message::{Message, Messages},
    quote::Quote,
};
use super::{Stop, frame::Frame, ipv4::Ipv4, ipv6::Ipv6, maps};

#[inline(always)]
pub(crate) fn balance(ctx: &XdpContext) -> Result<u32, Stop> {
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    if frame.is_ipv4() {
        forward::<Ipv4>(&frame)
    } else {
        forward::<Ipv6>(&frame)
    }
}

#[inline(always)]
fn forward<F: Messages>(frame: &Frame<'_>) -> Result<u32, Stop> {
    let message = Message::<F>::parse(frame).ok_or(Stop::Pass)?;
    if message.is_echo_request() {
        return echo::answer(frame, message);
    }
    let quote = Quote::parse(message).ok_or(Stop::Pass)?;
    if let Some(service) = maps::service_at::<F>(F::source(quote.ip), quote.tcp.source) {
        towards_backend::forward(frame, quote, service)
    } else if let Some(first) =
        maps::backend_at::<F>(F::destination(quote.ip), quote.tcp.destination)
    {
        towards_client::forward(frame, quote, first)
    } else {
        Err(Stop::Pass)
    }
}
