//! Explicit congestion notification where a packet leaves a tunnel (RFC 6040).
//!
//! The two ECN bits of an IP header say whether its transport understands ECN, and whether a router
//! on the way was congested (RFC 3168 §5). Routers within a tunnel mark the outer header; what
//! strips it has to carry the mark over to the inner one, or drop the packet where its sender would
//! never learn of the mark.

/// The ECN field of an IP header: the lowest two bits of IPv4's TOS and IPv6's traffic class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ecn(u8);

impl Ecn {
    /// The transport does not understand ECN.
    pub const NOT_ECT: Self = Self(0b00);
    pub const ECT1: Self = Self(0b01);
    pub const ECT0: Self = Self(0b10);
    /// Congestion experienced.
    pub const CE: Self = Self(0b11);

    /// The bits of this field in a TOS or traffic class.
    pub const MASK: u8 = 0b11;

    /// Of an IPv4 TOS or an IPv6 traffic class; the DSCP above it does not count.
    #[inline(always)]
    #[must_use]
    pub const fn of(traffic_class: u8) -> Self {
        Self(traffic_class & Self::MASK)
    }

    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// What a packet with this field has to carry on when `outer` has been stripped from it
    /// (RFC 6040 §4.2, figure 4); `None`: it has to be dropped.
    #[inline(always)]
    #[must_use]
    pub const fn decapsulated(self, outer: Self) -> Option<Self> {
        match (self, outer) {
            (Self::NOT_ECT, Self::CE) => None,
            (Self::NOT_ECT, _) => Some(Self::NOT_ECT),
            (_, Self::CE) => Some(Self::CE),
            // As severe as a mark of pre-congestion (RFC 6660), and never the other way round.
            (Self::ECT0, Self::ECT1) => Some(Self::ECT1),
            (inner, _) => Some(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-FWD-8: figure 4 of RFC 6040 §4.2 as it stands there.
    #[test]
    fn the_table_of_rfc_6040() {
        const N: Option<Ecn> = Some(Ecn::NOT_ECT);
        const E0: Option<Ecn> = Some(Ecn::ECT0);
        const E1: Option<Ecn> = Some(Ecn::ECT1);
        const CE: Option<Ecn> = Some(Ecn::CE);
        const DROP: Option<Ecn> = None;
        let outers = [Ecn::NOT_ECT, Ecn::ECT0, Ecn::ECT1, Ecn::CE];
        let figure = [
            (Ecn::NOT_ECT, [N, N, N, DROP]),
            (Ecn::ECT0, [E0, E0, E1, CE]),
            (Ecn::ECT1, [E1, E1, E1, CE]),
            (Ecn::CE, [CE, CE, CE, CE]),
        ];
        for (inner, row) in figure {
            for (outer, outgoing) in outers.into_iter().zip(row) {
                assert_eq!(inner.decapsulated(outer), outgoing, "{inner:?} {outer:?}");
            }
        }
    }

    #[test]
    fn only_the_lowest_two_bits_count() {
        for traffic_class in 0..=u8::MAX {
            assert_eq!(Ecn::of(traffic_class).bits(), traffic_class % 4);
        }
    }
}
