use super::{
    Side::{Backend, Client},
    *,
};

const SYN: u8 = Flags::SYN;
const ACK: u8 = Flags::ACK;
const FIN: u8 = Flags::FIN | Flags::ACK;
const RST: u8 = Flags::RST;
const SYN_ACK: u8 = Flags::SYN | Flags::ACK;

const EVERY: [State; 9] = [
    State::SYN_SENT,
    State::SYN_RECEIVED,
    State::REFUSED,
    State::ESTABLISHED,
    State::FIN_WAIT_CLIENT,
    State::FIN_WAIT_BACKEND,
    State::CLOSING,
    State::TIME_WAIT,
    State::RESET,
];

#[track_caller]
fn walk(from: State, steps: &[(Side, u8, State)]) {
    let mut state = from;
    for (n, &(side, flags, expected)) in steps.iter().enumerate() {
        state = state.after(side, Flags::new(flags));
        assert_eq!(state, expected, "step {n}: {side:?} {flags:#04x}");
    }
}

/// S-NAT-2: handshake with retransmissions, data, close by the client.
#[test]
fn an_ordinary_connection() {
    walk(
        State::SYN_SENT,
        &[
            (Client, SYN, State::SYN_SENT),
            (Backend, SYN_ACK, State::SYN_RECEIVED),
            (Client, SYN, State::SYN_RECEIVED),
            (Backend, SYN_ACK, State::SYN_RECEIVED),
            (Client, ACK, State::ESTABLISHED),
            (Backend, ACK, State::ESTABLISHED),
            (Client, FIN, State::FIN_WAIT_CLIENT),
            (Backend, ACK, State::FIN_WAIT_CLIENT),
            (Backend, FIN, State::CLOSING),
            (Client, ACK, State::TIME_WAIT),
            (Backend, FIN, State::TIME_WAIT),
            (Client, ACK, State::TIME_WAIT),
        ],
    );
}

/// S-NAT-2: the backend closes first, the client goes on sending.
#[test]
fn half_close_by_the_backend() {
    walk(
        State::ESTABLISHED,
        &[
            (Backend, FIN, State::FIN_WAIT_BACKEND),
            (Client, ACK, State::FIN_WAIT_BACKEND),
            (Client, FIN, State::CLOSING),
            (Client, FIN, State::CLOSING),
            (Backend, ACK, State::CLOSING),
        ],
    );
}

/// S-NAT-2: simultaneous open (RFC 9293 §3.5): SYNs cross, then both send SYN-ACK.
#[test]
fn simultaneous_open() {
    walk(
        State::SYN_SENT,
        &[
            (Backend, SYN, State::SYN_SENT),
            (Backend, SYN_ACK, State::SYN_RECEIVED),
            (Client, ACK, State::ESTABLISHED),
        ],
    );
}

/// S-NAT-6: a forged RST of the client ends nothing.
#[test]
fn a_forged_reset_of_the_client_is_forgotten() {
    for established in [
        State::ESTABLISHED,
        State::FIN_WAIT_CLIENT,
        State::FIN_WAIT_BACKEND,
    ] {
        walk(
            established,
            &[
                (Client, RST, State::RESET),
                (Client, ACK, State::ESTABLISHED),
            ],
        );
        walk(
            established,
            &[
                (Client, RST, State::RESET),
                (Backend, ACK, State::ESTABLISHED),
            ],
        );
        assert!(!established.after(Client, Flags::new(RST)).is_half_open());
    }
}

/// S-NAT-6, S-NAT-7: a RST and then a SYN on the same tuple leave it to the backend to say
/// which of them was forged.
#[test]
fn a_syn_after_a_reset_is_judged_by_the_backend() {
    walk(
        State::RESET,
        &[
            (Client, SYN, State::RESET),
            (Backend, ACK, State::ESTABLISHED),
        ],
    );
    walk(
        State::RESET,
        &[
            (Client, SYN, State::RESET),
            (Backend, SYN_ACK, State::SYN_RECEIVED),
            (Client, ACK, State::ESTABLISHED),
        ],
    );
    assert!(!State::RESET.reopens());
}

/// S-CT-1: a backend that knows of no connection takes back what a forged ACK has made.
#[test]
fn a_reset_of_the_backend_makes_the_record_replaceable() {
    for state in [
        State::SYN_SENT,
        State::SYN_RECEIVED,
        State::ESTABLISHED,
        State::FIN_WAIT_CLIENT,
        State::FIN_WAIT_BACKEND,
        State::RESET,
    ] {
        let refused = state.after(Backend, Flags::new(RST | ACK));
        assert_eq!(refused, State::REFUSED);
        assert!(refused.is_half_open());
        assert_eq!(refused.after(Client, Flags::new(ACK)), State::REFUSED);
    }
}

/// S-CT-1: whatever a client sends on its own, it has no established record.
#[test]
fn a_client_alone_establishes_nothing() {
    let mut reached = vec![State::SYN_SENT];
    while let Some(state) = reached.pop() {
        for flags in 0..64 {
            let next = state.after(Client, Flags::new(flags));
            assert!(next.is_half_open(), "{state:?} {flags:#04x} -> {next:?}");
            if next != state && !reached.contains(&next) {
                reached.push(next);
            }
        }
    }
}

/// S-CT-5: a connection whose record was lost is established again by the backend's word.
#[test]
fn a_lost_connection_is_picked_up() {
    walk(
        State::SYN_SENT,
        &[
            (Client, ACK, State::SYN_SENT),
            (Backend, ACK, State::ESTABLISHED),
        ],
    );
}

#[test]
fn only_a_syn_ack_succeeds_a_closed_connection() {
    for state in EVERY {
        let closed = matches!(state, State::CLOSING | State::TIME_WAIT);
        assert_eq!(state.is_succeeded(Flags::new(SYN_ACK)), closed, "{state:?}");
        for flags in [SYN, ACK, FIN, RST, RST | ACK] {
            assert!(
                !state.is_succeeded(Flags::new(flags)),
                "{state:?} {flags:#04x}"
            );
        }
    }
}

#[test]
fn living_states_stay_living() {
    for state in EVERY {
        assert!(state.is_live());
        assert_eq!(State::from_bits(state.bits()), state);
        for flags in 0..64 {
            assert!(state.after(Client, Flags::new(flags)).is_live());
            assert!(state.after(Backend, Flags::new(flags)).is_live());
        }
    }
    assert!(!State::FREE.is_live() && !State::CLAIMED.is_live());
}

#[test]
fn impossible_flags() {
    for bad in [
        0,
        Flags::FIN,
        SYN | Flags::FIN,
        SYN | RST,
        Flags::PSH | Flags::URG,
        0x3f,
    ] {
        assert!(Flags::new(bad).impossible(), "{bad:#04x}");
    }
    for good in [
        SYN,
        SYN_ACK,
        ACK,
        FIN,
        RST,
        RST | ACK,
        ACK | Flags::PSH,
        SYN | Flags::PSH,
    ] {
        assert!(!Flags::new(good).impossible(), "{good:#04x}");
    }
}

/// S-NAT-2 in modes that see one direction: the client's ACK after its SYN makes the connection.
#[test]
fn a_connection_of_which_only_the_client_is_seen() {
    let alone = Side::ClientAlone;
    walk(
        State::SYN_SENT,
        &[
            (alone, SYN, State::SYN_SENT),
            (alone, RST, State::SYN_SENT),
            (alone, ACK, State::ESTABLISHED),
            (alone, SYN, State::ESTABLISHED),
            (alone, RST, State::RESET),
            (alone, RST, State::RESET),
            (alone, ACK, State::ESTABLISHED),
            (alone, FIN, State::FIN_WAIT_CLIENT),
            (alone, ACK, State::FIN_WAIT_CLIENT),
            (alone, RST, State::RESET),
            (alone, FIN, State::FIN_WAIT_CLIENT),
        ],
    );
}

/// S-NAT-7 in modes that see one direction.
#[test]
fn a_syn_reopens_what_the_lone_client_has_closed() {
    for state in EVERY {
        let closed = [State::FIN_WAIT_CLIENT, State::RESET].contains(&state);
        assert_eq!(
            state.reopens_alone(),
            state.reopens() || closed,
            "{state:?}"
        );
    }
}

/// S-CT-6: whatever comes, it is answered, until a SYN begins anew.
#[test]
fn what_was_ended_stays_ended() {
    for side in [Client, Backend, Side::ClientAlone] {
        for flags in 0..0x40 {
            assert_eq!(State::ENDED.after(side, Flags::new(flags)), State::ENDED);
        }
    }
    assert!(State::ENDED.reopens() && State::ENDED.is_live() && !State::ENDED.is_half_open());
}
