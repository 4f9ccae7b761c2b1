//! The keyed hashes that choose backends, outer sources and places (§5, §12).

use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

use lb_userspace::model::ServiceId;
use siphasher::sip::SipHasher13;

/// The secrets of the two hashes, as map `KEYS` holds them: flow key, then selection key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys(pub [u64; 4]);

impl Keys {
    /// The flow hash: of the client, and the service's id spread by the golden ratio.
    pub fn flow(self, service: ServiceId, client: SocketAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0[0], self.0[1]);
        hasher.write(&bytes(client));
        let id = u64::from(service.0);
        hasher
            .finish()
            .wrapping_add(id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Which of a service's `slots` is the client's.
    pub(super) fn slot(self, listen: SocketAddr, client: SocketAddr, slots: usize) -> usize {
        let mut hasher = SipHasher13::new_with_keys(self.0[2], self.0[3]);
        hasher.write(&seed(listen).to_le_bytes());
        hasher.write(&bytes(client));
        let high = hasher.finish() >> 32;
        ((u128::from(high) * slots as u128) >> 32) as usize
    }
}

/// FNV-1a (64 bits) of a service's listen address in 16 bytes, IPv4 in the first four, and port.
fn seed(listen: SocketAddr) -> u64 {
    let mut message = octets(listen.ip());
    message.resize(16, 0);
    message.extend_from_slice(&listen.port().to_be_bytes());
    message.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Address and port as they stand in a packet.
fn bytes(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = octets(endpoint.ip());
    bytes.extend_from_slice(&endpoint.port().to_be_bytes());
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
