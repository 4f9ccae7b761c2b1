//! Refused packets that are shown to whoever asks why (`lbctl stats drops`).

use lb_common::{flow::Tick, records::Sample};

use super::{header::Headers, rate};
use crate::xdp::{clock, errand::Errand, family::Parsed, frame::Frame, maps};

/// Leaves a sample of the packet, as it stands in the frame.
#[inline(always)]
pub(super) fn take<F: Headers>(frame: &Frame<'_>, errand: &Errand, parsed: &Parsed<'_, F>) {
    let time = clock::nanoseconds();
    let reason = errand.reason();
    if !rate::admits_sample(reason, Tick::from_nanoseconds(time)) {
        return;
    }
    let Some(ip) = frame.network().take::<F::Header>() else {
        return;
    };
    let (source_port, destination_port) = match parsed {
        Parsed::Segment(segment) => (segment.tcp.source, segment.tcp.destination),
        _ => ([0; 2], [0; 2]),
    };
    maps::leave_sample(|| Sample {
        time,
        source: F::record(F::source(ip)),
        destination: F::record(F::destination(ip)),
        source_port,
        destination_port,
        ifindex: frame.ingress_ifindex(),
        service: errand.service,
        reason,
        version: F::VERSION,
        length: F::length(ip) as u16,
        reserved: [0; 2],
    });
}
