//! The host's own addresses.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
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
    let (driver, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
    let driver = tokio::spawn(driver);
    let listed = timeout(ANSWER, handle.address().get().execute().try_collect()).await;
    driver.abort();
    let failed = |failure| NetlinkError::Request {
        action: "list the addresses of this host".to_owned(),
        failure,
    };
    let messages: Vec<AddressMessage> = listed
        .map_err(|_| failed(RequestFailure::NoAnswer))?
        .map_err(|error| failed(RequestFailure::Refused(io::Error::other(error))))?;
    Ok(messages
        .iter()
        .filter_map(own_address)
        .filter(|address| !address.is_loopback())
        .collect())
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
}
