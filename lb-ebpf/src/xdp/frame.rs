//! The Ethernet frame: bounds-checked access to its headers, and its VLAN tags.

use core::marker::PhantomData;

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len, programs::XdpContext};
use lb_common::records::VlanTag;

use super::shared::forget;

/// Types that may be laid over packet bytes.
///
/// # Safety
///
/// Any bytes are a valid value, and a packet's headers (which begin at even addresses) meet the
/// alignment.
pub(crate) unsafe trait Header {}

// SAFETY: pairs of bytes at even offsets.
unsafe impl Header for EthernetHeader {}
// SAFETY: byte arrays only.
unsafe impl Header for VlanHeader {}
// SAFETY: bytes.
unsafe impl Header for [u8; 2] {}
// SAFETY: bytes.
unsafe impl Header for [u8; 4] {}
// SAFETY: a byte.
unsafe impl Header for u8 {}

/// The Ethernet header (IEEE 802.3). Its addresses are in pairs of bytes, because a frame begins at an
/// even address: what need not be aligned is copied byte by byte.
#[repr(C)]
pub(crate) struct EthernetHeader {
    pub(crate) destination: [u16; 3],
    pub(crate) source: [u16; 3],
    /// In network order.
    pub(crate) ether_type: u16,
}

/// What follows an outer EtherType of 802.1Q or 802.1ad.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct VlanHeader {
    pub(crate) tci: [u8; 2],
    pub(crate) ether_type: [u8; 2],
}

/// Reads a packet's headers one after another, each checked against the end of the packet once.
///
/// The verifier follows a pointer that only ever grows and is compared with the end before use;
/// it refuses an offset that is added to the start again and again.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'p> {
    position: *mut u8,
    end: *mut u8,
    packet: PhantomData<&'p mut [u8]>,
}

impl<'p> Cursor<'p> {
    #[inline(always)]
    pub(crate) fn take<T: Header>(&mut self) -> Option<&'p mut T> {
        let next = self.position.wrapping_add(size_of::<T>());
        if next > self.end {
            return None;
        }
        let header = self.position.cast::<T>();
        self.position = next;
        // SAFETY: the bytes lie within the packet, `T: Header` says that any bytes will do, and
        // no two headers overlap because the cursor moves past each.
        Some(unsafe { &mut *header })
    }

    /// Moves on; the next [`Cursor::take`] checks the bounds.
    #[inline(always)]
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.position = self.position.wrapping_add(bytes);
    }

    /// Bytes to the end of the packet's first buffer.
    #[inline(always)]
    pub(crate) fn remaining(&self) -> usize {
        (self.end as usize).wrapping_sub(self.position as usize)
    }
}

/// A received frame up to its network header.
pub(crate) struct Frame<'p> {
    pub(crate) context: *mut xdp_md,
    pub(crate) ethernet: &'p mut EthernetHeader,
    pub(crate) tag_count: u16,
    ether_type: u16,
    network: Cursor<'p>,
}

/// EtherTypes, in network order as they stand in a frame.
pub(crate) const IPV4: u16 = 0x0800_u16.to_be();
pub(crate) const IPV6: u16 = 0x86dd_u16.to_be();
const DOT1Q: u16 = 0x8100_u16.to_be();
const DOT1AD: u16 = 0x88a8_u16.to_be();

/// Bit of a MAC address's first byte: multicast or broadcast.
const GROUP: u8 = 1;

/// Tags that are read; a frame with more is not IP to us.
pub(crate) const MAX_TAGS: usize = 2;

#[inline(always)]
fn is_tag(ether_type: u16) -> bool {
    ether_type == DOT1Q || ether_type == DOT1AD
}

impl<'p> Frame<'p> {
    /// Reads the Ethernet header and at most two tags (S-FWD-6). A frame to a group of hosts is none
    /// of ours (RFC 1812 §5.3.4).
    #[inline(always)]
    pub(crate) fn parse(ctx: &'p XdpContext) -> Option<Self> {
        let mut cursor = Cursor {
            position: ctx.data() as *mut u8,
            end: ctx.data_end() as *mut u8,
            packet: PhantomData,
        };
        let ethernet = cursor.take::<EthernetHeader>()?;
        if ethernet.destination[0].to_ne_bytes()[0] & GROUP != 0 {
            return None;
        }
        let noise = ethernet.source[0];
        let mut ether_type = ethernet.ether_type;
        let mut tags = 0;
        let mut inner = cursor;
        for _ in 0..MAX_TAGS {
            if !is_tag(ether_type) {
                break;
            }
            ether_type = u16::from_ne_bytes(inner.take::<VlanHeader>()?.ether_type);
            tags += 1;
        }
        // The verifier is to walk what follows once, not once for each number of tags.
        let tags = forget::<3>(tags, noise.into());
        cursor.skip(tags * size_of::<VlanHeader>());
        Some(Self {
            context: ctx.ctx,
            ethernet,
            tag_count: tags as u16,
            ether_type,
            network: cursor,
        })
    }

    /// The frame's VLAN tags, outermost first; zero where there is none.
    #[inline(always)]
    pub(crate) fn tags(&self) -> [VlanTag; MAX_TAGS] {
        let mut tags = [VlanTag::default(); MAX_TAGS];
        let mut cursor = self.reread();
        if self.tag_count == 0 || cursor.take::<EthernetHeader>().is_none() {
            return tags;
        }
        let mut tpid = self.ethernet.ether_type;
        for tag in &mut tags {
            let Some(header) = cursor.take::<VlanHeader>().filter(|_| is_tag(tpid)) else {
                break;
            };
            *tag = VlanTag {
                tpid: tpid.to_ne_bytes(),
                tci: header.tci,
            };
            tpid = u16::from_ne_bytes(header.ether_type);
        }
        tags
    }

    #[inline(always)]
    pub(crate) fn is_ipv4(&self) -> bool {
        self.ether_type == IPV4
    }

    #[inline(always)]
    pub(crate) fn is_ipv6(&self) -> bool {
        self.ether_type == IPV6
    }

    /// In network order, as it stands in the frame.
    #[inline(always)]
    pub(crate) fn ether_type(&self) -> u16 {
        self.ether_type
    }

    /// From the network header on.
    #[inline(always)]
    pub(crate) fn network(&self) -> Cursor<'p> {
        self.network
    }

    /// Bytes from the network header to the end of the frame, all buffers of it, where `room` are
    /// those in the first.
    #[inline(always)]
    pub(crate) fn network_length(&self, room: usize) -> usize {
        // SAFETY: the context is valid for as long as the program runs; its packet pointers are
        // 32-bit offsets that the kernel turns into addresses.
        let linear = unsafe { ((*self.context).data_end - (*self.context).data) as usize };
        // SAFETY: the helper only reads the context. Where the kernel does not have it (before
        // 5.18) there are no further buffers, and nobody asks.
        let whole = unsafe { bpf_xdp_get_buff_len(self.context) } as usize;
        room + whole.wrapping_sub(linear)
    }

    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: the context is valid for as long as the program runs.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// A cursor over the whole frame again, after its head has been moved.
    #[inline(always)]
    pub(crate) fn reread(&self) -> Cursor<'p> {
        // SAFETY: as in `ingress_ifindex`.
        let (data, end) = unsafe { ((*self.context).data, (*self.context).data_end) };
        Cursor {
            position: data as usize as *mut u8,
            end: end as usize as *mut u8,
            packet: PhantomData,
        }
    }
}
