//! What most tests start from.

use lb_tests::lab::{Lab, Lbd};

/// Port of the backends' servers.
pub(crate) const PORT: u16 = 8080;

/// A configuration of one IPv4 and one IPv6 service over all backends of the lab.
pub(crate) fn config(lab: &Lab) -> String {
    let mut text = String::new();
    for interface in ["eth0", "eth1"] {
        text.push_str(&format!("[[interface]]\nname = \"{interface}\"\n\n"));
    }
    text.push_str(&service(lab, "web", "192.0.2.10:80", |n| {
        lab.backends()[n].v4(PORT).to_string()
    }));
    text.push_str(&service(lab, "web6", "[2001:db8::10]:80", |n| {
        lab.backends()[n].v6(PORT).to_string()
    }));
    text
}

fn service(lab: &Lab, name: &str, listen: &str, address: impl Fn(usize) -> String) -> String {
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\n\
         [service.check]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n\n"
    );
    for n in 0..lab.backends().len() {
        text.push_str(&format!(
            "[[service.backend]]\nname = \"b{n}\"\naddress = \"{}\"\n\n",
            address(n)
        ));
    }
    text
}

/// A daemon with [`config`].
pub(crate) fn start(lab: &Lab) -> Lbd {
    Lbd::start(lab, &config(lab)).expect("the daemon starts")
}
