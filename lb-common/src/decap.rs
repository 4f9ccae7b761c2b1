//! What the decapsulator of backends (`lb-decap` in `lb-ebpf`) and `lbctl decap` share: its maps'
//! records, and what may become of a packet.

/// Version of the maps' layout; part of the path of their pins. Raised with every change of a
/// record below, of a map's type or size, or of the meaning of a counter.
pub const LAYOUT_VERSION: u32 = 1;

/// Addresses of the host that are remembered, of each family.
pub const MAX_ADDRESSES: u32 = 16_384;

/// The UDP port of GUE (IANA's `gue`).
pub const GUE_PORT: u16 = 6080;

/// An IPv4 address as a key of the maps: its bytes as they stand in a packet, a native word.
pub type Address4 = u32;
/// An IPv6 address likewise.
pub type Address6 = [u64; 2];

/// What `lbctl` tells the program, apart from the addresses, and the next `lbctl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// UDP destination port of GUE, in network order. Port 0: no GUE.
    pub gue_port: [u8; 2],
    pub reserved: [u8; 2],
    /// The network namespace whose addresses and interfaces these are: its inode's number, which
    /// `lbctl` compares with its own. 0: none yet.
    pub namespace: u32,
}

const _: () = assert!(size_of::<Settings>() == 8);

/// What became of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The outer header was stripped; the host got the inner packet.
    Stripped,
    /// The host got the packet as it came.
    Passed,
    Dropped,
}

macro_rules! outcomes {
    ($($variant:ident = $value:literal, $name:literal, $verdict:ident, $description:literal;)*) => {
        /// An outcome that is counted; also the index of its counter. Packets that nobody has sent
        /// to the host through a tunnel pass without being counted.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Outcome {
            $(#[doc = $description] $variant = $value,)*
        }

        impl Outcome {
            /// In the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it stands in JSON.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// For people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }

            #[inline(always)]
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)* }
            }
        }
    };
}

outcomes! {
    Ipip = 0, "ipip", Stripped, "IP in IP";
    Gue = 1, "gue", Stripped, "GUE variant 1";
    Fragment = 2, "fragment", Passed, "IP in IP, but a fragment of the outer packet";
    GueVariant = 3, "gue_variant", Passed, "to the GUE port, but not of variant 1";
    InnerVersion = 4, "inner_version", Passed, "IP version of the inner packet is not the announced one";
    InnerAddress = 5, "inner_address", Passed, "inner destination is no address of this host";
    OuterHeader = 6, "outer_header", Dropped, "IHL of the outer IPv4 header is impossible";
    OuterChecksum = 7, "outer_checksum", Dropped, "header checksum of the outer IPv4 header is wrong";
    OuterLength = 8, "outer_length", Dropped, "outer IP or UDP length is impossible";
    InnerTruncated = 9, "inner_truncated", Dropped, "inner IP header is cut short, or not in the frame's first buffer";
    InnerLength = 10, "inner_length", Dropped, "inner packet's lengths are impossible, or it is cut short";
    Ecn = 11, "ecn", Dropped, "congestion was marked on the way, and the inner transport knows no ECN (RFC 6040)";
    NotStripped = 12, "not_stripped", Dropped, "the kernel refused to move the frame's start";
}

impl Outcome {
    /// Counters there are.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_s_index_is_its_place_and_its_name_is_unique() {
        for (place, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, place);
            let same = Outcome::ALL.iter().filter(|o| o.name() == outcome.name());
            assert_eq!(same.count(), 1, "{}", outcome.name());
        }
    }
}
