//! What is rewritten, and that nothing else is: every expected frame is built anew, with its
//! checksums computed in full.

use lb_tests::packets::{CLIENT, CLIENT6, LISTEN, LISTEN6, Testbed, address};

/// S-NAT-1
#[test]
fn both_ends_are_rewritten() {
    let mut testbed = Testbed::with_full_nat();
    testbed.connect_full_nat(address(CLIENT), LISTEN);
    testbed.connect_full_nat(address(CLIENT6), LISTEN6);
}
