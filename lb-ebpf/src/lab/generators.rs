//! Preludes: each writes a frame anew, makes it that of one of many flows, and leaves it to the
//! program under test.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one packet without restoring it, so without a prelude
//! only the first of a million runs would see the packet that was meant. What a prelude costs is
//! measured with a program that does nothing and subtracted.

use core::intrinsics;

use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::bpf_xdp_adjust_head,
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};
use lb_common::{
    checksum,
    lab::{Generator, Layout},
};

#[map]
static GENERATOR: Array<Generator> = Array::with_max_entries(1, 0);
/// The program under test.
#[map]
static UNDER_TEST: ProgramArray = ProgramArray::with_max_entries(1, 0);

/// Numbers of flows, for the programs that take them from here.
#[map]
static LIST: Array<u32> = Array::with_max_entries(Generator::LISTED, 0);

/// A prelude: what it makes, and how.
macro_rules! prelude {
    ($name:ident, $words:ident, $layout:ident, $flow:ident, $restore:ident) => {
        // Multi-buffer like the program under test: the kernel refuses tail calls between unlike
        // programs.
        #[xdp(frags)]
        pub(crate) fn $name(ctx: XdpContext) -> u32 {
            run::<{ Generator::$words }>(&ctx, Layout::$layout, $flow, $restore)
        }
    };
}

prelude!(request4, WORDS4, REQUEST4, any, nothing);
prelude!(request6, WORDS6, REQUEST6, any, nothing);
prelude!(reply4, WORDS4, REPLY4, any, nothing);
prelude!(reply6, WORDS6, REPLY6, any, nothing);
// For programs that put a header in front.
prelude!(tunnelled4, WORDS4, REQUEST4, any, start);
prelude!(tunnelled6, WORDS6, REQUEST6, any, start);
// For flows of which it is only known in the end what makes them.
prelude!(listed_reply4, WORDS4, REPLY4, listed, nothing);
prelude!(listed_reply6, WORDS6, REPLY6, listed, nothing);
prelude!(spread4, WORDS4, SPREAD4, listed, nothing);

/// The verdict of the program under test; `XDP_ABORTED` if it was not reached.
#[inline(always)]
fn run<const WORDS: usize>(
    ctx: &XdpContext,
    layout: Layout,
    flow: impl FnOnce(u64) -> Option<u64>,
    restore: impl FnOnce(&XdpContext, usize) -> Option<()>,
) -> u32 {
    if restore(ctx, WORDS * size_of::<u64>()).is_some()
        && write_frame::<WORDS>(ctx, layout, flow).is_some()
    {
        // SAFETY: nothing here has a destructor.
        unsafe { UNDER_TEST.tail_call(ctx, 0) };
    }
    xdp_action::XDP_ABORTED
}

/// The flow of a number that is as good as any other.
#[inline(always)]
fn any(number: u64) -> Option<u64> {
    Some(number)
}

/// The flow at this place of the list.
#[inline(always)]
fn listed(place: u64) -> Option<u64> {
    LIST.get(place as u32).map(|&flow| u64::from(flow))
}

/// Frames stay as long as they are.
#[inline(always)]
fn nothing(_ctx: &XdpContext, _length: usize) -> Option<()> {
    Some(())
}

/// Takes off what the last run has put in front: the kernel does not, and after a dozen runs there
/// would be no room left. The helper is called for nothing, too, so that it always costs the same.
#[inline(always)]
fn start(ctx: &XdpContext, length: usize) -> Option<()> {
    let excess = ctx.data_end().wrapping_sub(ctx.data()).wrapping_sub(length);
    // SAFETY: the context is valid; every pointer into the packet is read anew behind this.
    let moved = unsafe { bpf_xdp_adjust_head(ctx.ctx, excess as i32) };
    (moved == 0).then_some(())
}

#[inline(always)]
fn write_frame<const WORDS: usize>(
    ctx: &XdpContext,
    layout: Layout,
    flow: impl FnOnce(u64) -> Option<u64>,
) -> Option<()> {
    let frame = ctx.data() as *mut [u64; WORDS];
    if frame.wrapping_add(1) as usize > ctx.data_end() {
        return None;
    }
    let generator = GENERATOR.get_ptr_mut(0)?;
    // SAFETY: the only entry of an array, and the benchmark does not touch it during a run.
    let generator = unsafe { &mut *generator };
    generator.state = generator
        .state
        .wrapping_mul(generator.multiplier)
        .wrapping_add(generator.increment);
    let flow = flow((generator.state >> 32) & generator.mask)?;
    let address = flow as u16;
    let port = ((flow >> 16) as u16).to_be();
    let difference = checksum::fold(u32::from(address) + u32::from(port));
    for n in 0..WORDS {
        let mut word = generator.frame[n];
        // Known at compile time for every word: most are only copied.
        if layout.client_address / 8 == n {
            word |= u64::from(address) << shift(layout.client_address);
        }
        if layout.client_port / 8 == n {
            word |= u64::from(port) << shift(layout.client_port);
        }
        if layout.tcp_checksum / 8 == n {
            word = mend(word, layout.tcp_checksum, difference);
        }
        if let Some(offset) = layout.ip_checksum
            && offset / 8 == n
        {
            word = mend(word, offset, address);
        }
        // SAFETY: within the packet, as checked above; its alignment is not known.
        unsafe { frame.cast::<u64>().add(n).write_unaligned(word) };
    }
    // An atomic addition waits until the frame has arrived in the cache. A program that read it
    // from the store buffer would find it by luck, as the widths of stores and loads fall, and no
    // network card writes there.
    // SAFETY: an aligned word of a map.
    unsafe {
        intrinsics::atomic_xadd::<u64, u64, { intrinsics::AtomicOrdering::SeqCst }>(
            &raw mut generator.packets,
            1,
        )
    };
    Some(())
}

/// Of the 16-bit field at this offset, in its native word (BPF has the byte order of the host).
#[inline(always)]
const fn shift(offset: usize) -> usize {
    if cfg!(target_endian = "little") {
        offset % 8 * 8
    } else {
        48 - offset % 8 * 8
    }
}

/// The word with the checksum in it updated by `difference`.
#[inline(always)]
fn mend(word: u64, offset: usize, difference: u16) -> u64 {
    let shift = shift(offset);
    let checksum = checksum::update((word >> shift) as u16, difference);
    word & !(0xffff << shift) | u64::from(checksum) << shift
}
