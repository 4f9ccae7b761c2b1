//! Sums of 16-bit words in memory order, for [`lb_common::checksum::fold`].

/// Of an IPv4 address.
#[inline(always)]
pub(crate) fn address4(address: [u8; 4]) -> u32 {
    word32(u32::from_ne_bytes(address))
}

/// Of an IPv6 address.
#[inline(always)]
pub(crate) fn address6(address: [u64; 2]) -> u32 {
    let mut sum = 0;
    for half in address {
        sum += word32(half as u32) + word32((half >> 32) as u32);
    }
    sum
}

/// Of four bytes.
#[inline(always)]
pub(crate) fn word32(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// Of the last words of a pseudo-header (RFC 9293 §3.1, RFC 8200 §8.1).
#[inline(always)]
pub(crate) fn protocol_and_length(protocol: u8, length: u16) -> u32 {
    u32::from(u16::from_ne_bytes([0, protocol])) + u32::from(length.to_be())
}
