//! The host's own addresses.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use tokio::time::timeout;

use super::{NetlinkError, RequestFailure};

/// A host with thousands of addresses takes some milliseconds.
const ANSWER: Duration = Duration::from_secs(5);

/// Every address of every interface in this thread's network namespace, loopback addresses apart:
/// no packet from a wire may bear those (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3).
///
/// # Errors
///
/// When the kernel refuses, or does not answer in time.
pub async fn own_addresses() -> Result<BTreeSet<IpAddr>, NetlinkError> {
    Ok(list()
        .await?
        .iter()
        .filter_map(own_address)
        .filter(|address| !address.is_loopback())
        .collect())
}

/// Addresses that others may answer to, each with the index of its interface: neither loopback nor
/// link-local ones, nor such as the kernel would not send from.
///
/// # Errors
///
/// As [`own_addresses`].
pub async fn source_addresses() -> Result<Vec<(u32, IpAddr)>, NetlinkError> {
    Ok(list()
        .await?
        .iter()
        .filter(|message| is_source(message))
        .filter_map(|message| Some((message.header.index, own_address(message)?)))
        .collect())
}

async fn list() -> Result<Vec<AddressMessage>, NetlinkError> {
    let (driver, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
    let driver = tokio::spawn(driver);
    let listed = timeout(ANSWER, handle.address().get().execute().try_collect()).await;
    driver.abort();
    let failed = |failure| NetlinkError::Request {
        action: "list the addresses of this host".to_owned(),
        failure,
    };
    listed
        .map_err(|_| failed(RequestFailure::NoAnswer))?
        .map_err(|error| failed(RequestFailure::Refused(io::Error::other(error))))
}

fn is_source(message: &AddressMessage) -> bool {
    let unusable = AddressHeaderFlags::Tentative
        | AddressHeaderFlags::Dadfailed
        | AddressHeaderFlags::Deprecated;
    message.header.scope == AddressScope::Universe && !message.header.flags.intersects(unusable)
}

/// On a point-to-point interface `IFA_ADDRESS` is the other end's, and `IFA_LOCAL` is ours; IPv6
/// gives `IFA_ADDRESS` alone where there is no other end (`include/uapi/linux/if_addr.h`).
fn own_address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
    local.or_else(|| {
        message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_ends_the_near_one_is_ours() {
        let address = |text: &str| -> IpAddr { text.parse().unwrap() };
        let message = |attributes| {
            let mut message = AddressMessage::default();
            message.attributes = attributes;
            message
        };
        let (near, far) = (address("10.0.0.1"), address("10.0.0.2"));
        let (near_attribute, far_attribute) = (
            AddressAttribute::Local(near),
            AddressAttribute::Address(far),
        );
        let both = message(vec![far_attribute, near_attribute]);
        assert_eq!(own_address(&both), Some(near));
        let alone = address("2001:db8::1");
        let one = message(vec![AddressAttribute::Address(alone)]);
        assert_eq!(own_address(&one), Some(alone));
        assert_eq!(own_address(&message(vec![])), None);
    }

    #[test]
    fn only_global_addresses_in_good_standing_are_sources() {
        let mut message = AddressMessage::default();
        message.header.scope = AddressScope::Universe;
        assert!(is_source(&message));
        message.header.flags = AddressHeaderFlags::Permanent;
        assert!(is_source(&message));
        message.header.flags |= AddressHeaderFlags::Tentative;
        assert!(!is_source(&message));
        message.header.flags = AddressHeaderFlags::empty();
        message.header.scope = AddressScope::Link;
        assert!(!is_source(&message));
    }
}
