//! Why a packet was dropped, or forwarded otherwise than by its record. Nothing is dropped
//! silently.

macro_rules! reasons {
    ($($variant:ident = $value:literal, $name:literal, $dropped:literal, $description:literal;)*) => {
        /// A reason; also the index of its counter within a service's row.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $(#[doc = $description] $variant = $value,)*
        }

        impl Reason {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// As it stands in JSON and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// For people.
            #[must_use]
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $description,)* }
            }

            /// Whether the packet was dropped; otherwise it was forwarded all the same.
            #[must_use]
            pub const fn is_drop(self) -> bool {
                match self { $(Self::$variant => $dropped,)* }
            }
        }
    };
}

reasons! {
    MalformedIp = 0, "malformed_ip", true, "IP header or total length is impossible";
    BadIpChecksum = 1, "bad_ip_checksum", true, "IPv4 header checksum is wrong";
    MalformedTcp = 2, "malformed_tcp", true, "TCP header is cut short or its length is impossible";
    ImpossibleFlags = 3, "impossible_flags", true, "TCP flags that no TCP sends";
    Fragment = 4, "fragment", true, "fragment: ports are not in every piece";
    ExtensionHeaders = 5, "extension_headers", true, "more IPv6 extension headers than are read";
    TtlExpired = 6, "ttl_expired", true, "TTL or hop limit is used up";
    UnexpectedSynAck = 7, "unexpected_syn_ack", true, "SYN-ACK from the client side of no connection";
    NoBackend = 8, "no_backend", true, "no backend can take the connection";
    NoNextHop = 9, "no_next_hop", true, "no route or no neighbour towards the receiver";
    TupleCollision = 10, "tuple_collision", true, "the client's port is in use with this backend through another service";
    NoHeadroom = 11, "no_headroom", true, "the frame has no room for the way out's VLAN tags";
    Untracked = 12, "untracked", false, "new connection found no place in the connection table and was hashed";
    UntrackedReply = 13, "untracked_reply", false, "reply of a connection without a record, translated by hash";
    FloodUnrecorded = 14, "flood_unrecorded", false, "new connection during a flood of SYNs, hashed and not recorded";
    TooBig = 15, "too_big", true, "larger than what reaches the backend";
    SnatExhausted = 16, "snat_exhausted", true, "no SNAT port is free for the connection";
    Ended = 17, "ended", true, "connection was ended by the load balancer";
    IcmpUnmatched = 18, "icmp_unmatched", true, "ICMP error about a connection that nobody has";
    IcmpTranslated = 19, "icmp_translated", false, "ICMP error led to whom it concerns";
    EchoAnswered = 20, "echo_answered", false, "echo request answered";
    RstSent = 21, "rst_sent", false, "refusal answered with a RST";
    IcmpSent = 22, "icmp_sent", false, "refusal answered with an ICMP error";
    IcmpLimited = 23, "icmp_limited", false, "ICMP error not sent: too many already";
}

impl Reason {
    /// Counters in a service's row, a power of two.
    pub const ROW: u32 = 32;
}

const _: () = assert!(Reason::ALL.len() <= Reason::ROW as usize);
