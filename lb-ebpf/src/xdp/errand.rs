//! What one program leaves to the next one that goes on with the same packet: a tail call carries
//! nothing but the packet.

use lb_common::records::{Answer, Hop};

use super::Refusal;

/// One a CPU; written before a tail call, read behind it.
#[repr(C, align(8))]
pub(crate) struct Errand {
    /// For [`super::mss`]: the way out.
    pub(crate) hop: Hop,
    /// Of the flow, for [`super::open`] and [`super::tunnel`].
    pub(crate) hash: u64,
    /// Service id; 0 for [`super::open`]: the packet is from the backend.
    pub(crate) service: u16,
    /// Backend index. For [`super::open`] the first one with the packet's source address, or of a
    /// packet to a service the one that [`super::collision`] has found no rivals with.
    pub(crate) backend: u16,
    /// For [`super::mss`], bytes.
    pub(crate) mss: u16,
    /// For [`super::mss`]: not 0 if [`super::tunnel`] goes on with the packet.
    pub(crate) wrap: u8,
    answer: u8,
    mtu: u16,
    reason: u8,
    reserved: [u8; 1],
}

impl Errand {
    #[inline(always)]
    pub(crate) fn set_refusal(&mut self, refusal: Refusal) {
        self.service = refusal.service;
        self.reason = refusal.reason as u8;
        self.answer = refusal.answer as u8;
        self.mtu = refusal.mtu;
    }

    /// As [`lb_common::reason::Reason`] has it.
    #[inline(always)]
    pub(crate) fn reason(&self) -> u8 {
        self.reason
    }

    #[inline(always)]
    pub(crate) fn answer(&self) -> Answer {
        Answer::from_bits(self.answer)
    }

    /// Bytes.
    #[inline(always)]
    pub(crate) fn mtu(&self) -> u16 {
        self.mtu
    }
}
