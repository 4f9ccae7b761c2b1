//! Which address of this host asks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::Mutex, time::Instant};

use super::{PathError, Way};
use crate::{
    model::NextHop,
    netlink::{self, NetlinkError, RequestFailure},
};

/// How long the host's addresses are taken to be as they were.
const FRESH: Duration = Duration::from_secs(10);

/// Finds addresses that a backend can answer to.
#[derive(Debug, Default)]
pub(super) struct Sources {
    listed: Mutex<Option<Listed>>,
}

#[derive(Debug)]
struct Listed {
    at: Instant,
    /// Each with the index of its interface.
    addresses: Arc<[(u32, IpAddr)]>,
}

impl Sources {
    /// That which the kernel would use towards the backend; where the service is of the other
    /// family (IPv6 through an IPv4 tunnel), one of the interface that leads there, or else any.
    /// Never the service's own, which the backend would take for itself.
    pub(super) async fn find(
        &self,
        way: &Way,
        backend: IpAddr,
        next_hop: &NextHop,
    ) -> Result<IpAddr, PathError> {
        let service = way.service.ip();
        if service.is_ipv4() == backend.is_ipv4()
            && let Some(preferred) = preferred(backend).map_err(PathError::Local)?
            && preferred != service
        {
            return Ok(preferred);
        }
        let listed = self
            .list()
            .await
            .map_err(|error| PathError::Local(io_error(error)))?;
        choose(&listed, service, next_hop.ifindex).ok_or(PathError::NoSource(service))
    }

    async fn list(&self) -> Result<Arc<[(u32, IpAddr)]>, NetlinkError> {
        let mut listed = self.listed.lock().await;
        match &*listed {
            Some(Listed { at, addresses }) if at.elapsed() < FRESH => Ok(Arc::clone(addresses)),
            _ => {
                let addresses = netlink::source_addresses().await?.into();
                *listed = Some(Listed {
                    at: Instant::now(),
                    addresses: Arc::clone(&addresses),
                });
                Ok(addresses)
            }
        }
    }
}

/// An address of the service's family, best of the interface with this index.
fn choose(listed: &[(u32, IpAddr)], service: IpAddr, ifindex: u32) -> Option<IpAddr> {
    listed
        .iter()
        .filter(|(_, own)| own.is_ipv4() == service.is_ipv4() && *own != service)
        .min_by_key(|(interface, _)| *interface != ifindex)
        .map(|&(_, own)| own)
}

/// What the kernel would send from (its route's preferred source, or by RFC 6724); `None` without a
/// route. Sends nothing: connecting a UDP socket is but a route look-up.
fn preferred(to: IpAddr) -> io::Result<Option<IpAddr>> {
    const DISCARD: u16 = 9;
    let any: IpAddr = match to {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    if socket.connect((to, DISCARD)).is_err() {
        return Ok(None);
    }
    Ok(Some(socket.local_addr()?.ip()))
}

/// The kernel's own error where there is one: it may be a lack of descriptors.
fn io_error(error: NetlinkError) -> io::Error {
    match error {
        NetlinkError::Open(error)
        | NetlinkError::Request {
            failure: RequestFailure::Refused(error),
            ..
        } => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_that_leads_there_comes_first_and_the_service_never() {
        let listed = [
            (1, "192.0.2.10"),
            (2, "10.1.0.1"),
            (3, "10.2.0.1"),
            (3, "fd00:2::1"),
        ];
        let listed = listed.map(|(index, address)| (index, address.parse().unwrap()));
        let choose = |service: &str, ifindex| {
            let chosen = choose(&listed, service.parse().unwrap(), ifindex)?;
            Some(chosen.to_string())
        };
        assert_eq!(choose("192.0.2.10", 3).as_deref(), Some("10.2.0.1"));
        assert_eq!(choose("192.0.2.10", 1).as_deref(), Some("10.1.0.1"));
        assert_eq!(choose("2001:db8::10", 2).as_deref(), Some("fd00:2::1"));
        assert_eq!(choose("fd00:2::1", 3), None);
    }

    #[test]
    fn the_kernel_says_what_it_would_send_from() {
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        assert_eq!(preferred(loopback).unwrap(), Some(loopback));
        // Nobody broadcasts who has not said so.
        assert_eq!(preferred(Ipv4Addr::BROADCAST.into()).unwrap(), None);
    }
}
