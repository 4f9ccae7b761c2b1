//! Packets from backends to the balancer's addresses.

use lb_common::records::Backend;

use crate::xdp::{
    Stop,
    family::{Family, Segment},
    frame::Frame,
    maps, reply, rewrite,
    snat::{self, Holder},
};

#[inline(always)]
pub(super) fn forward<F: Family>(
    frame: &Frame<'_>,
    segment: &mut Segment<'_, F>,
) -> Result<u32, Stop> {
    let holder = snat::find_by_port::<F>(segment.destination(), segment.tcp.destination)
        .ok_or(Stop::Pass)?;
    let (index, backend) = sender(segment, &holder).ok_or(Stop::Pass)?;
    let Holder { record, client, .. } = holder;
    let (service, hop) = reply::accept::<F>(frame, segment, backend, record, client.address)?;
    rewrite::destination(segment, client);
    reply::send(frame, segment, index, backend, service, hop, true)
}

/// The record's backend, if the packet is from it.
#[inline(always)]
fn sender<F: Family>(
    segment: &Segment<'_, F>,
    holder: &Holder<F>,
) -> Option<(u16, &'static Backend)> {
    let index = holder.record.value.backend();
    let backend = maps::backend(index)?;
    let is_sender = backend.service == holder.service
        && F::address(&backend.address) == segment.source()
        && backend.port == segment.tcp.source;
    is_sender.then_some((index, backend))
}
