//! ICMP.

use aya_ebpf::programs::XdpContext;

use super::Stop;

#[inline(always)]
pub(crate) fn balance(_ctx: &XdpContext) -> Result<u32, Stop> {
    Err(Stop::Pass)
}
