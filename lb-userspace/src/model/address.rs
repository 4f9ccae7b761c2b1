use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Why an address and port can neither be listened on nor be a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    #[error("port 0 is no port; write one from 1 to 65535")]
    NoPort,
    #[error("it stands for any address; name a single one")]
    Unspecified,
    #[error("TCP needs a single host and this is a multicast address")]
    Multicast,
    #[error("TCP needs a single host and this is the broadcast address")]
    Broadcast,
    #[error("it is an IPv4 address written as IPv6; write {0}")]
    Mapped(Ipv4Addr),
    #[error("an address with a zone (\"%2\") has a meaning on one link only; write one without")]
    Zone,
}

impl AddressFault {
    /// Why TCP to this address and port cannot be balanced, if it cannot.
    pub fn of(address: SocketAddr) -> Option<Self> {
        let ip = address.ip();
        if ip.is_unspecified() {
            return Some(Self::Unspecified);
        }
        if ip.is_multicast() {
            return Some(Self::Multicast);
        }
        match ip {
            IpAddr::V4(v4) if v4.is_broadcast() => return Some(Self::Broadcast),
            IpAddr::V4(_) => {}
            IpAddr::V6(v6) => {
                if let Some(v4) = v6.to_ipv4_mapped() {
                    return Some(Self::Mapped(v4));
                }
            }
        }
        // A zone would also make two socket addresses of what is one to the packet path.
        if let SocketAddr::V6(v6) = address
            && (v6.scope_id() != 0 || v6.flowinfo() != 0)
        {
            return Some(Self::Zone);
        }
        (address.port() == 0).then_some(Self::NoPort)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_single_host_and_port_can_be_balanced() {
        let fault = |text: &str| AddressFault::of(text.parse().unwrap());
        for good in [
            "192.0.2.1:80",
            "127.0.0.1:1",
            "[2001:db8::1]:65535",
            "[::1]:80",
        ] {
            assert_eq!(fault(good), None, "{good}");
        }
        for (bad, why) in [
            ("0.0.0.0:80", AddressFault::Unspecified),
            ("[::]:80", AddressFault::Unspecified),
            ("224.0.0.1:80", AddressFault::Multicast),
            ("[ff02::1]:80", AddressFault::Multicast),
            ("255.255.255.255:80", AddressFault::Broadcast),
            (
                "[::ffff:192.0.2.1]:80",
                AddressFault::Mapped(Ipv4Addr::new(192, 0, 2, 1)),
            ),
            ("[fe80::1%2]:80", AddressFault::Zone),
            ("192.0.2.1:0", AddressFault::NoPort),
            ("[2001:db8::1]:0", AddressFault::NoPort),
        ] {
            assert_eq!(fault(bad), Some(why), "{bad}");
        }
    }
}
