//! The Internet checksum (RFC 1071), always over everything it protects.

/// The sum of bytes that lie one after another, as 16-bit words of the network; an odd last byte is
/// the high half of a word. Every part but the last has an even number of bytes.
fn sum(parts: &[&[u8]]) -> u64 {
    let mut sum = 0;
    for part in parts {
        for word in part.chunks(2) {
            sum += u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0));
        }
    }
    sum
}

/// The same with carries added in: 0 only if every word is.
pub(super) fn folded(parts: &[&[u8]]) -> u16 {
    fold(sum(parts))
}

pub(super) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Whether bytes that hold their own checksum are intact.
pub fn verifies(parts: &[&[u8]]) -> bool {
    folded(parts) == 0xffff
}

/// What is to stand in a checksum's field, which is zero in `parts`, for a receiver to find the
/// error `error`: 0 or 0xffff for none.
pub(super) fn with_error(parts: &[&[u8]], error: u16) -> u16 {
    // The receiver's sum is that of the parts and the field; it is to be 0xffff plus the error.
    let missing = fold(u64::from(error) + u64::from(!folded(parts)));
    // Of the two zeros of ones' complement a sum of words that are not all zero never is the
    // positive one, so that a checksum that is computed never is 0xffff (RFC 1624 §3).
    if missing == 0xffff { 0 } else { missing }
}

/// The error that a receiver finds: 0 if there is none.
pub(super) fn error(parts: &[&[u8]]) -> u16 {
    match folded(parts) {
        0xffff => 0,
        sum => sum,
    }
}
