use super::{NOTHING, stats::verdict};
use crate::{
    api::DropInfo,
    cli::{
        humane::{ago, count},
        table::Table,
    },
};

pub(in crate::cli) fn drops(list: &[DropInfo]) -> String {
    let mut reasons = Table::new(&["SERVICE", "REASON", "VERDICT", ">PACKETS", "DESCRIPTION"]);
    let mut samples = Table::new(&["SERVICE", "REASON", "PACKET", "INTERFACE", ">AGE"]);
    let mut has_samples = false;
    for info in list {
        let service = info.service.as_ref().map_or(NOTHING, |name| name.as_str());
        let reason = &info.reason;
        reasons.row([
            service.to_owned(),
            reason.reason.clone(),
            verdict(reason).to_owned(),
            count(reason.packets),
            reason.description.clone(),
        ]);
        for sample in &info.samples {
            has_samples = true;
            samples.row([
                service.to_owned(),
                reason.reason.clone(),
                format!("{} → {}", sample.source, sample.destination),
                sample.interface.clone(),
                ago(sample.age_s),
            ]);
        }
    }
    if has_samples {
        format!("{reasons}\n{samples}")
    } else {
        reasons.to_string()
    }
}
