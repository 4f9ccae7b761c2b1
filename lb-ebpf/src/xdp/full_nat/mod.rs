//! `full-nat`: the backend sees the balancer's address, so that its replies come back here
//! whatever its routes are. A connection's record stands where its translated port is
//! ([`super::snat`]).

mod reply;
mod request;

use aya_ebpf::programs::XdpContext;
use lb_common::records::Backend;

use super::{
    Stop,
    family::{Family, Parsed, Segment},
    frame::Frame,
    maps, snat,
};

/// Goes on with a packet of which the program before this one knows whose it is.
#[inline(always)]
pub(crate) fn balance<F: Family>(ctx: &XdpContext) -> Result<u32, Stop> {
    let errand = maps::errand().ok_or(Stop::Pass)?;
    let frame = Frame::parse(ctx).ok_or(Stop::Pass)?;
    let Parsed::Segment(mut segment) = F::parse(&frame) else {
        return Err(Stop::Pass);
    };
    if errand.service != 0 {
        request::forward(&frame, &mut segment, errand.service)
    } else {
        reply::forward(&frame, &mut segment)
    }
}

/// Whether the packet replies to a connection with this very backend.
#[inline(always)]
pub(crate) fn is_reply<F: Family>(segment: &Segment<'_, F>, index: u16, backend: &Backend) -> bool {
    match snat::find_by_port::<F>(segment.destination(), segment.tcp.destination) {
        Some(holder) => holder.record.value.backend() == index && holder.service == backend.service,
        None => false,
    }
}
