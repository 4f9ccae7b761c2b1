//! What arithmetic instructions and conditions of jumps come to (RFC 9669 §4).

use anyhow::bail;

use super::instruction::{Instruction, SOURCE_IS_REGISTER, class};

const DIVIDE: u8 = 0x30;
const MOVE: u8 = 0xb0;
const SWAP: u8 = 0xd0;
const MODULO: u8 = 0x90;

/// The destination's new value. Of 32-bit operations the upper half is zero.
///
/// # Errors
///
/// There is no such instruction.
pub(super) fn compute(
    instruction: Instruction,
    destination: u64,
    source: u64,
) -> anyhow::Result<u64> {
    let is_wide = instruction.class() == class::ALU64;
    match (instruction.operation(), instruction.offset) {
        (SWAP, _) => swap(instruction, destination),
        (MOVE, bits @ (8 | 16 | 32)) => {
            let extended = sign_extend(source, bits as usize / 8);
            Ok(if is_wide { extended } else { low(extended) })
        }
        (operation @ (DIVIDE | MODULO), 1) => Ok(if is_wide {
            divide_signed(operation, destination as i64, source as i64) as u64
        } else {
            let (a, b) = (destination as i32, source as i32);
            low(divide_signed(operation, i64::from(a), i64::from(b)) as u64)
        }),
        (operation, 0) if is_wide => wide(operation, destination, source),
        (operation, 0) => narrow(operation, destination as u32, source as u32).map(u64::from),
        _ => bail!("no such arithmetic: {instruction:?}"),
    }
}

/// `bytes` bytes, extended to 64 bits by their sign.
pub(super) fn sign_extend(value: u64, bytes: usize) -> u64 {
    match bytes {
        1 => i64::from(value as i8) as u64,
        2 => i64::from(value as i16) as u64,
        4 => i64::from(value as i32) as u64,
        _ => value,
    }
}

fn low(value: u64) -> u64 {
    u64::from(value as u32)
}

fn wide(operation: u8, a: u64, b: u64) -> anyhow::Result<u64> {
    Ok(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        DIVIDE => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b as u32),
        0x70 => a.wrapping_shr(b as u32),
        0x80 => a.wrapping_neg(),
        MODULO => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        MOVE => b,
        0xc0 => (a as i64).wrapping_shr(b as u32) as u64,
        _ => bail!("no such 64-bit operation: {operation:#x}"),
    })
}

fn narrow(operation: u8, a: u32, b: u32) -> anyhow::Result<u32> {
    Ok(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        DIVIDE => a.checked_div(b).unwrap_or(0),
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b),
        0x70 => a.wrapping_shr(b),
        0x80 => a.wrapping_neg(),
        MODULO => a.checked_rem(b).unwrap_or(a),
        0xa0 => a ^ b,
        MOVE => b,
        0xc0 => (a as i32).wrapping_shr(b) as u32,
        _ => bail!("no such 32-bit operation: {operation:#x}"),
    })
}

fn divide_signed(operation: u8, a: i64, b: i64) -> i64 {
    match (operation, b) {
        (DIVIDE, 0) => 0,
        (DIVIDE, _) => a.wrapping_div(b),
        (_, 0) => a,
        _ => a.wrapping_rem(b),
    }
}

/// Of as many low bits as the immediate says; the others become zero.
fn swap(instruction: Instruction, value: u64) -> anyhow::Result<u64> {
    // In the 64-bit class, whatever the machine's order is.
    let always = instruction.class() == class::ALU64;
    let to_big = instruction.opcode & SOURCE_IS_REGISTER != 0;
    let is_swapped = always || to_big == cfg!(target_endian = "little");
    Ok(match (instruction.immediate, is_swapped) {
        (16, true) => u64::from((value as u16).swap_bytes()),
        (32, true) => u64::from((value as u32).swap_bytes()),
        (64, true) => value.swap_bytes(),
        (16, false) => u64::from(value as u16),
        (32, false) => low(value),
        (64, false) => value,
        _ => bail!("no such byte swap: {instruction:?}"),
    })
}

/// Whether a conditional jump is taken.
///
/// # Errors
///
/// There is no such condition.
pub(super) fn holds(instruction: Instruction, a: u64, b: u64) -> anyhow::Result<bool> {
    let is_wide = instruction.class() == class::JMP;
    let (a, b, signed_a, signed_b) = if is_wide {
        (a, b, a as i64, b as i64)
    } else {
        let signed = |value: u64| i64::from(value as i32);
        (low(a), low(b), signed(a), signed(b))
    };
    Ok(match instruction.operation() {
        0x10 => a == b,
        0x20 => a > b,
        0x30 => a >= b,
        0x40 => a & b != 0,
        0x50 => a != b,
        0x60 => signed_a > signed_b,
        0x70 => signed_a >= signed_b,
        0xa0 => a < b,
        0xb0 => a <= b,
        0xc0 => signed_a < signed_b,
        0xd0 => signed_a <= signed_b,
        _ => bail!("no such jump: {instruction:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDE: u8 = class::ALU64;
    const NARROW: u8 = class::ALU;

    fn result(opcode: u8, offset: i16, immediate: i32, a: u64, b: u64) -> u64 {
        let instruction = Instruction {
            opcode,
            offset,
            immediate,
            ..Instruction::default()
        };
        compute(instruction, a, b).unwrap()
    }

    #[test]
    fn narrow_results_have_no_upper_half() {
        let all = u64::MAX;
        assert_eq!(result(NARROW, 0, 0, all, 1), 0);
        assert_eq!(result(WIDE, 0, 0, all, 1), 0);
        assert_eq!(result(NARROW | MOVE, 0, 0, 7, all), 0xffff_ffff);
        assert_eq!(result(NARROW | 0x80, 0, 0, 1, 0), 0xffff_ffff);
        assert_eq!(result(NARROW | 0xc0, 0, 0, 0x8000_0000, 31), 0xffff_ffff);
        assert_eq!(result(WIDE | 0xc0, 0, 0, 1 << 63, 63), all);
    }

    #[test]
    fn shifts_take_as_many_bits_of_their_distance_as_count() {
        assert_eq!(result(WIDE | 0x60, 0, 0, 1, 65), 2);
        assert_eq!(result(NARROW | 0x60, 0, 0, 1, 33), 2);
        assert_eq!(result(NARROW | 0x70, 0, 0, 0xf_0000_0000, 0), 0);
    }

    #[test]
    fn a_division_by_zero_is_defined() {
        for class in [WIDE, NARROW] {
            assert_eq!(result(class | DIVIDE, 0, 0, 5, 0), 0);
            assert_eq!(result(class | MODULO, 0, 0, 5, 0), 5);
            assert_eq!(result(class | DIVIDE, 1, 0, 5, 0), 0);
            assert_eq!(result(class | MODULO, 1, 0, 5, 0), 5);
        }
        assert_eq!(result(WIDE | DIVIDE, 1, 0, -7_i64 as u64, 2), -3_i64 as u64);
        assert_eq!(result(NARROW | MODULO, 1, 0, 0xffff_fff9, 2), 0xffff_ffff);
    }

    #[test]
    fn bytes_are_swapped_and_signs_extended() {
        let number = 0x1122_3344_5566_7788;
        for (bits, swapped) in [(16, 0x8877), (32, 0x8877_6655), (64, 0x8877_6655_4433_2211)] {
            let always = result(WIDE | SWAP, 0, bits, number, 0);
            assert_eq!(always, swapped);
            let to_big = result(NARROW | SWAP | SOURCE_IS_REGISTER, 0, bits, number, 0);
            let to_little = result(NARROW | SWAP, 0, bits, number, 0);
            let kept = number & (u64::MAX >> (64 - bits));
            let (native, other) = if cfg!(target_endian = "little") {
                (to_little, to_big)
            } else {
                (to_big, to_little)
            };
            assert_eq!((native, other), (kept, swapped));
        }
        assert_eq!(result(WIDE | MOVE, 8, 0, 0, 0x80), -128_i64 as u64);
        assert_eq!(result(NARROW | MOVE, 8, 0, 0, 0x80), 0xffff_ff80);
    }

    #[test]
    fn conditions_know_signs_and_widths() {
        let taken = |opcode, a, b| {
            let instruction = Instruction {
                opcode,
                ..Instruction::default()
            };
            holds(instruction, a, b).unwrap()
        };
        let minus_one = u64::MAX;
        assert!(taken(class::JMP | 0x20, minus_one, 1));
        assert!(!taken(class::JMP | 0x60, minus_one, 1));
        assert!(taken(class::JMP | 0xc0, minus_one, 1));
        assert!(taken(class::JMP32 | 0x10, 0xf_0000_0001, 1));
        assert!(!taken(class::JMP | 0x10, 0xf_0000_0001, 1));
        assert!(taken(class::JMP32 | 0xc0, 0xffff_ffff, 0));
        assert!(!taken(class::JMP | 0xc0, 0xffff_ffff, 0));
    }
}
