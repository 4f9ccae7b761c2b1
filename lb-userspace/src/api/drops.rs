//! Which packets were refused, and why.

use std::net::{IpAddr, SocketAddr};

use super::{ApiError, Context, DropInfo, SampleInfo, parts::reasons};
use crate::{
    dataplane::Sample,
    model::{Name, ServiceId},
};

/// Every reason that was counted, by service, with what is known of the last packets.
pub(super) fn drops(context: &Context) -> Result<Vec<DropInfo>, ApiError> {
    let snapshot = context.control.snapshot();
    let samples = context.reader.samples();
    let services = snapshot
        .services
        .iter()
        .map(|view| Some((view.id, view.service.name.clone())));
    let mut list = Vec::new();
    for service in services.chain([None]) {
        let (id, name): (Option<ServiceId>, Option<Name>) = service.unzip();
        for reason in reasons(context.reader.reasons(id)?) {
            let of_this = samples
                .iter()
                .filter(|sample| sample.service == id && sample.reason == reason.reason);
            list.push(DropInfo {
                service: name.clone(),
                samples: of_this.map(info).collect(),
                reason,
            });
        }
    }
    Ok(list)
}

fn info(sample: &Sample) -> SampleInfo {
    SampleInfo {
        source: endpoint(sample.source),
        destination: endpoint(sample.destination),
        interface: sample.interface.clone(),
        age_s: sample.age.as_millis() as f64 / 1000.0,
    }
}

fn endpoint((address, port): (IpAddr, Option<u16>)) -> String {
    match port {
        Some(port) => SocketAddr::from((address, port)).to_string(),
        None => address.to_string(),
    }
}
