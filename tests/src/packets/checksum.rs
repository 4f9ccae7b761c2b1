//! Internet checksums computed in full (RFC 1071), for comparison with incremental ones.

/// The checksum of bytes that lie one after another, as the number that stands in the packet.
/// Every part but the last has an even number of bytes.
pub(super) fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum =
        words.map(|word| u64::from(u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])));
    !fold(sum.sum())
}

/// A checksum that is wrong by `error`; right where that is 0.
pub(super) fn wrong_by(checksum: u16, error: u16) -> u16 {
    !fold(u64::from(!checksum) + u64::from(error))
}

/// Whether bytes that hold their own checksum are intact.
pub(super) fn verifies(parts: &[&[u8]]) -> bool {
    checksum(parts) == 0
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 1071 §3.
    #[test]
    fn rfc_1071_example() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(checksum(&[&bytes]), !0xddf2);
        assert_eq!(checksum(&[&bytes[..4], &bytes[4..]]), !0xddf2);
        assert!(verifies(&[&bytes, &(!0xddf2_u16).to_be_bytes()]));
        assert!(!verifies(&[&bytes, &wrong_by(!0xddf2, 1).to_be_bytes()]));
    }

    #[test]
    fn an_odd_byte_counts_as_the_high_half_of_a_word() {
        assert_eq!(checksum(&[&[0x12, 0x34, 0x56]]), !(0x1234 + 0x5600));
    }
}
