//! The model itself against the examples of RFCs, so that it can be trusted.

use super::{checksum::*, hash::Keys, state::*};

/// RFC 1071 §3.
#[test]
fn checksum_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(folded(&[&bytes]), 0xddf2);
    assert_eq!(with_error(&[&bytes], 0), !0xddf2);
}

/// S-FWD-3: RFC 1624 §4: where 0x5555 becomes 0x3285 and the checksum was 0xdd2f, it becomes 0x0000
/// and not 0xffff.
#[test]
fn the_zero_of_rfc_1624() {
    let bytes = |word: u16| [word.to_be_bytes(), 0xcd7a_u16.to_be_bytes()].concat();
    assert_eq!(with_error(&[&bytes(0x5555)], 0), 0xdd2f);
    assert_eq!(with_error(&[&bytes(0x3285)], 0), 0x0000);
    assert!(verifies(&[&bytes(0x3285), &[0, 0]]));
}

/// S-FWD-3: what was wrong by something stays wrong by just that.
#[test]
fn errors_are_kept() {
    for wrong in [1, 0x8000, 0xfffe] {
        let mut bytes = [0x12, 0x34, 0x00, 0x00, 0x56, 0x78];
        let field = with_error(&[&bytes], wrong);
        bytes[2..4].copy_from_slice(&field.to_be_bytes());
        assert_eq!(error(&[&bytes]), wrong);
        assert!(!verifies(&[&bytes]));
    }
}

/// The states of the packet path and of the model, by every way there is (§10).
#[test]
fn states_agree_with_the_packet_paths_table() {
    use lb_common::tcp;
    for number in 2..=11 {
        let state = State::numbered(number).unwrap();
        for flags in (0..=255_u8).filter(|flags| !Flags(*flags).impossible()) {
            for (sender, side) in [
                (Sender::Client, tcp::Side::Client),
                (Sender::Backend, tcp::Side::Backend),
                (Sender::LoneClient, tcp::Side::ClientAlone),
            ] {
                let theirs = tcp::State::from_bits(number).after(side, tcp::Flags::new(flags));
                let ours = state.after(sender, Flags(flags));
                assert_eq!(
                    ours as u8,
                    theirs.bits(),
                    "{state:?} {sender:?} {flags:#04x}"
                );
            }
        }
    }
}

/// The reference vector of SipHash's authors is for SipHash-2-4; for 1-3 the crate has its own. What
/// is held here is the message: client, port, seed.
#[test]
fn hashes_spread_over_all_slots() {
    let keys = Keys([1, 2, 3, 4]);
    let listen = "192.0.2.10:80".parse().unwrap();
    let mut seen = [0; 7];
    for port in 0..7000_u16 {
        seen[keys.slot(listen, ([198, 51, 100, 7], port).into(), 7)] += 1;
    }
    assert!(
        seen.iter().all(|count| (800..1200).contains(count)),
        "{seen:?}"
    );
}
