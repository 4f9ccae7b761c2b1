//! BPF instructions as they stand in an object (RFC 9669).

use aya_obj::generated::bpf_insn;

/// Bits of [`Instruction::opcode`] that tell the class (RFC 9669 §3).
pub(super) mod class {
    pub(in super::super) const LD: u8 = 0x00;
    pub(in super::super) const LDX: u8 = 0x01;
    pub(in super::super) const ST: u8 = 0x02;
    pub(in super::super) const STX: u8 = 0x03;
    pub(in super::super) const ALU: u8 = 0x04;
    pub(in super::super) const JMP: u8 = 0x05;
    pub(in super::super) const JMP32: u8 = 0x06;
    pub(in super::super) const ALU64: u8 = 0x07;
}

/// Where an arithmetic instruction's or a jump's second operand is a register; with byte swaps: to big
/// endian.
pub(super) const SOURCE_IS_REGISTER: u8 = 0x08;

/// One of 64 bits, or a half of one of 128.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) opcode: u8,
    pub(super) destination: u8,
    pub(super) source: u8,
    pub(super) offset: i16,
    pub(super) immediate: i32,
}

impl Instruction {
    pub(super) fn class(self) -> u8 {
        self.opcode & 0x07
    }

    /// Of arithmetic and of jumps: the upper four bits.
    pub(super) fn operation(self) -> u8 {
        self.opcode & 0xf0
    }

    pub(super) fn has_source_register(self) -> bool {
        self.opcode & SOURCE_IS_REGISTER != 0
    }

    /// Of loads and stores: how they address memory.
    pub(super) fn mode(self) -> u8 {
        self.opcode & 0xe0
    }

    /// Bytes of a load or a store.
    pub(super) fn size(self) -> usize {
        match self.opcode & 0x18 {
            0x00 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        }
    }
}

impl From<&bpf_insn> for Instruction {
    fn from(instruction: &bpf_insn) -> Self {
        Self {
            opcode: instruction.code,
            destination: instruction.dst_reg(),
            source: instruction.src_reg(),
            offset: instruction.off,
            immediate: instruction.imm,
        }
    }
}
