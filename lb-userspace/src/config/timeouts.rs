use std::time::Duration;

use crate::{
    dataplane::Timeouts,
    model::{Profile, TimeoutOverrides},
};

/// RFC 5382 REQ-5 and S-NAT-3: the keep-alive of RFC 1122 comes after 2 hours, and gets 4 minutes
/// for its retransmissions. Shorter, and idle connections would be forgotten while both ends
/// still believe in them; no profile does that.
const ESTABLISHED: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// For a balancer that faces the Internet: what half-open and closing connections hold is bounded
/// by what hosts do today rather than by what RFC 9293 allows them.
const EDGE: Timeouts = Timeouts {
    // Each retransmission of the SYN starts it anew. They come 1, 2, 4, 8 and 16 s apart, so a
    // client that is still trying keeps its record, and so its backend, for the first minute.
    half_open: Duration::from_secs(30),
    established: ESTABLISHED,
    // After one FIN the other side may go on sending, and each packet starts it anew: this is
    // the longest silence of a half-closed connection. Hosts give their orphans 60 s.
    fin_wait: Duration::from_secs(120),
    // Only the last ACK is outstanding: retransmissions of a FIN on a live path take less.
    closing: Duration::from_secs(30),
    // 2 MSL as hosts do it: Linux waits 60 s (an MSL of 30 s) where RFC 9293 §3.4.2 has 4 min
    // (2 min). It costs nothing to err here: a new SYN takes over a record in TIME_WAIT at once
    // (S-NAT-7), and a stray segment without a record follows its hash.
    time_wait: Duration::from_secs(60),
    // The RST may be forged. A living connection shows itself by its next packet, which restores
    // it (S-NAT-6); the two ends of a dead one say nothing.
    reset: Duration::from_secs(10),
};

/// RFC 5382 REQ-5 to the letter: everything transitory has 4 minutes, which is 2 MSL.
const RFC: Timeouts = Timeouts {
    half_open: TRANSITORY,
    established: ESTABLISHED,
    fin_wait: TRANSITORY,
    closing: TRANSITORY,
    time_wait: TRANSITORY,
    reset: TRANSITORY,
};
const TRANSITORY: Duration = Duration::from_secs(4 * 60);

/// The idle timeouts of a service: those that it sets itself, and of its profile the rest
/// (S-NAT-3). `profile` is that of services which name none.
pub fn timeouts(profile: Profile, overrides: &TimeoutOverrides) -> Timeouts {
    let profile = match overrides.profile.unwrap_or(profile) {
        Profile::Edge => EDGE,
        Profile::Rfc => RFC,
    };
    Timeouts {
        half_open: overrides.half_open.unwrap_or(profile.half_open),
        established: overrides.established.unwrap_or(profile.established),
        fin_wait: overrides.fin_wait.unwrap_or(profile.fin_wait),
        closing: overrides.closing.unwrap_or(profile.closing),
        time_wait: overrides.time_wait.unwrap_or(profile.time_wait),
        reset: overrides.reset.unwrap_or(profile.reset),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-NAT-3.
    #[test]
    fn profile_rfc_has_the_least_that_rfc_5382_allows() {
        let rfc = timeouts(Profile::Rfc, &TimeoutOverrides::default());
        assert!(rfc.established >= Duration::from_secs(7440));
        for transitory in [
            rfc.half_open,
            rfc.fin_wait,
            rfc.closing,
            rfc.time_wait,
            rfc.reset,
        ] {
            assert!(transitory >= Duration::from_secs(240));
        }
    }

    /// S-NAT-3.
    #[test]
    fn profile_edge_is_shorter_only_where_it_says_so() {
        let edge = timeouts(Profile::Edge, &TimeoutOverrides::default());
        let rfc = timeouts(Profile::Rfc, &TimeoutOverrides::default());
        assert_eq!(edge.established, rfc.established);
        assert!(edge.half_open < rfc.half_open && edge.closing < rfc.closing);
        // A SYN that is retransmitted 16 s after the last one finds its record.
        assert!(edge.half_open > Duration::from_secs(16));
    }

    /// S-NAT-3: whatever `[conntrack]` says.
    #[test]
    fn a_service_can_have_a_profile_of_its_own() {
        for own in [Profile::Edge, Profile::Rfc] {
            let named = TimeoutOverrides {
                profile: Some(own),
                ..TimeoutOverrides::default()
            };
            let nothing = TimeoutOverrides::default();
            for other in [Profile::Edge, Profile::Rfc] {
                assert_eq!(timeouts(other, &named), timeouts(own, &nothing));
            }
        }
    }

    #[test]
    fn each_timeout_can_be_set_by_the_service() {
        let seconds = |n| Some(Duration::from_secs(n));
        let overrides = TimeoutOverrides {
            profile: None,
            half_open: seconds(1),
            established: seconds(2),
            fin_wait: seconds(3),
            closing: seconds(4),
            time_wait: seconds(5),
            reset: seconds(6),
        };
        let set = timeouts(Profile::Edge, &overrides);
        assert_eq!(
            [
                set.half_open,
                set.established,
                set.fin_wait,
                set.closing,
                set.time_wait,
                set.reset
            ]
            .map(|d| d.as_secs()),
            [1, 2, 3, 4, 5, 6]
        );
    }
}
