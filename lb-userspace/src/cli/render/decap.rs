use std::net::IpAddr;

use crate::{
    cli::{humane::count, table::Table},
    dataplane::decap::{Attached, DecapStatus},
};

pub(in crate::cli) fn decap_attached(attached: &Attached) -> String {
    let mut text = format!(
        "{}: {} in {} mode",
        attached.interface,
        if attached.refreshed {
            "brought up to date"
        } else {
            "attached"
        },
        attached.mode
    );
    if !attached.note.is_empty() {
        text += &format!(" ({})", attached.note);
    }
    let number = attached.addresses.len() as u64;
    let addresses = match number {
        1 => "1 address".to_owned(),
        _ => format!("{number} addresses"),
    };
    text += &format!(
        "\nstrips IP in IP, and GUE to port {}, for {addresses} of this host\n",
        attached.gue_port
    );
    text
}

pub(in crate::cli) fn decap_status(status: &DecapStatus) -> String {
    let mut interfaces = Table::new(&["INTERFACE", "MODE"]);
    for interface in &status.interfaces {
        interfaces.row([interface.name.clone(), interface.mode.to_string()]);
    }
    let mut counters = Table::new(&["OUTCOME", "VERDICT", ">PACKETS", "DESCRIPTION"]);
    for outcome in &status.counters {
        counters.row([
            outcome.outcome.clone(),
            outcome.verdict.clone(),
            count(outcome.packets),
            outcome.description.clone(),
        ]);
    }
    let mut text = format!(
        "{interfaces}\nGUE port   {}\naddresses  {}\n\n{counters}",
        status.gue_port,
        list(&status.addresses)
    );
    let mut warnings = Vec::new();
    if !status.missing.is_empty() {
        warnings.push(format!(
            "this host also has {}, which the program does not know",
            list(&status.missing)
        ));
    }
    if !status.stale.is_empty() {
        warnings.push(format!("this host no longer has {}", list(&status.stale)));
    }
    if !warnings.is_empty() {
        text.push('\n');
    }
    for warning in warnings {
        text += &format!("warning: {warning}: `lbctl decap attach` again\n");
    }
    text
}

fn list(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => super::NOTHING.to_owned(),
        _ => addresses
            .iter()
            .map(IpAddr::to_string)
            .collect::<Vec<_>>()
            .join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::{
        AttachMode,
        decap::{DecapInterface, OutcomeCount},
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_status_warns_of_addresses_that_have_changed() {
        let mut status = DecapStatus {
            interfaces: vec![DecapInterface {
                name: "eth0".into(),
                mode: AttachMode::Native,
            }],
            gue_port: 6080,
            addresses: vec![address("10.0.1.11"), address("2001:db8::1")],
            missing: vec![],
            stale: vec![],
            counters: vec![OutcomeCount {
                outcome: "ipip".into(),
                verdict: "stripped".into(),
                packets: 7,
                description: "IP in IP".into(),
            }],
        };
        let quiet = "INTERFACE  MODE\n\
                     eth0       native\n\n\
                     GUE port   6080\n\
                     addresses  10.0.1.11 2001:db8::1\n\n\
                     OUTCOME  VERDICT   PACKETS  DESCRIPTION\n\
                     ipip     stripped        7  IP in IP\n";
        assert_eq!(decap_status(&status), quiet);
        status.missing = vec![address("192.0.2.10")];
        status.stale = vec![address("10.0.1.12")];
        assert_eq!(
            decap_status(&status),
            format!(
                "{quiet}\n\
                 warning: this host also has 192.0.2.10, which the program does not know: \
                 `lbctl decap attach` again\n\
                 warning: this host no longer has 10.0.1.12: `lbctl decap attach` again\n"
            )
        );
    }

    #[test]
    fn an_attachment_says_what_it_does() {
        let mut attached = Attached {
            interface: "eth0".into(),
            mode: AttachMode::Native,
            note: String::new(),
            refreshed: false,
            gue_port: 6080,
            addresses: vec![address("10.0.1.11")],
        };
        assert_eq!(
            decap_attached(&attached),
            "eth0: attached in native mode\n\
             strips IP in IP, and GUE to port 6080, for 1 address of this host\n"
        );
        attached.mode = AttachMode::Generic;
        attached.refreshed = true;
        attached.note = "as configured".into();
        assert!(
            decap_attached(&attached)
                .starts_with("eth0: brought up to date in generic mode (as configured)\n")
        );
    }
}
