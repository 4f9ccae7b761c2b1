//! `full-nat`.

use aya_ebpf::programs::XdpContext;

use super::{
    Stop,
    family::{Family, Segment},
};

#[inline(always)]
pub(crate) fn balance(_ctx: &XdpContext) -> Result<u32, Stop> {
    Err(Stop::Pass)
}

#[inline(always)]
pub(crate) fn is_reply<F: Family>(_segment: &Segment<'_, F>, _index: u16) -> bool {
    false
}
