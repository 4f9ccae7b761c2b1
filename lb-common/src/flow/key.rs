use crate::hash::{HashKey, sip13};

/// Key of an IPv4 flow: client address, client port and service id in one word.
///
/// Address and port stand as in the packet, read in native byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey4(u64);

impl FlowKey4 {
    #[inline(always)]
    #[must_use]
    pub const fn new(client: [u8; 4], port: [u8; 2], service: u16) -> Self {
        Self(
            u32::from_ne_bytes(client) as u64
                | (u16::from_ne_bytes(port) as u64) << 32
                | (service as u64) << 48,
        )
    }

    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    #[must_use]
    pub const fn client(self) -> [u8; 4] {
        (self.0 as u32).to_ne_bytes()
    }

    #[must_use]
    pub const fn port(self) -> [u8; 2] {
        ((self.0 >> 32) as u16).to_ne_bytes()
    }

    #[must_use]
    #[inline(always)]
    pub const fn service(self) -> u16 {
        (self.0 >> 48) as u16
    }

    #[inline(always)]
    #[must_use]
    pub fn hash(self, key: HashKey) -> u64 {
        of_service(sip13::<6, 1>(key, [self.0 & CLIENT]), self.service())
    }

    /// Picks the slot of a service's table: the same on every load balancer with this key.
    #[inline(always)]
    #[must_use]
    pub fn selection_hash(self, key: HashKey, service_seed: u64) -> u64 {
        sip13::<14, 2>(key, [service_seed, self.0 & CLIENT])
    }
}

/// Key of an IPv6 flow: client address, and client port and service id in a third word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey6 {
    pub(super) address: [u64; 2],
    pub(super) tail: u64,
}

impl FlowKey6 {
    #[inline(always)]
    #[must_use]
    pub fn new(client: [u8; 16], port: [u8; 2], service: u16) -> Self {
        let address = u128::from_ne_bytes(client);
        Self {
            address: [address as u64, (address >> 64) as u64],
            tail: u64::from(u16::from_ne_bytes(port)) | u64::from(service) << 16,
        }
    }

    #[must_use]
    pub const fn from_words(address: [u64; 2], tail: u64) -> Self {
        Self { address, tail }
    }

    #[must_use]
    pub const fn client(self) -> [u8; 16] {
        (self.address[0] as u128 | (self.address[1] as u128) << 64).to_ne_bytes()
    }

    #[must_use]
    pub const fn port(self) -> [u8; 2] {
        (self.tail as u16).to_ne_bytes()
    }

    #[must_use]
    #[inline(always)]
    pub const fn service(self) -> u16 {
        (self.tail >> 16) as u16
    }

    #[inline(always)]
    #[must_use]
    pub fn hash(self, key: HashKey) -> u64 {
        let [low, high] = self.address;
        let client = [low, high, self.tail & PORT];
        of_service(sip13::<18, 3>(key, client), self.service())
    }

    /// As [`FlowKey4::selection_hash`].
    #[inline(always)]
    #[must_use]
    pub fn selection_hash(self, key: HashKey, service_seed: u64) -> u64 {
        let [low, high] = self.address;
        sip13::<26, 4>(key, [service_seed, low, high, self.tail & PORT])
    }
}

/// Address and port in a [`FlowKey4`].
const CLIENT: u64 = 0xffff_ffff_ffff;
/// The port in the tail of a [`FlowKey6`].
const PORT: u64 = 0xffff;

/// From the hash of a flow's client, that of the flow.
///
/// The service is not hashed with the secret because it is known only after a lookup, and the
/// hash, the longest chain of instructions in a packet's way, need not wait for that. Where the
/// flows of one client with two services lie from each other is then no secret; but where they lie
/// is, so that nobody can aim at a bucket.
#[inline(always)]
const fn of_service(client: u64, service: u16) -> u64 {
    // 2^64 by the golden ratio: neighbouring services lie far apart, in both halves.
    client.wrapping_add((service as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}
