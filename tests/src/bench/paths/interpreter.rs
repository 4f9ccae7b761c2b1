//! Executes BPF instructions one by one, and counts them.

use anyhow::{Context as _, bail, ensure};

use super::{
    arithmetic::{compute, holds, sign_extend},
    instruction::{Instruction, class},
    memory::{Access, Memory},
};

/// More instructions than any packet takes: whoever gets there is in an endless loop.
const MOST_INSTRUCTIONS: u64 = 1_000_000;
/// Bytes of a function's stack.
const STACK: usize = 512;
/// Functions within one another, as in the kernel.
const DEEPEST: usize = 8;

const FRAME_POINTER: usize = 10;
/// Registers that a callee leaves as they were.
const SAVED: std::ops::Range<usize> = 6..10;

/// What is outside of the instructions.
pub(super) trait World {
    /// Calls a helper by its number with `r1` to `r5`.
    fn call(
        &mut self,
        helper: i32,
        arguments: [u64; 5],
        memory: &mut Memory,
    ) -> anyhow::Result<Called>;

    /// What an instruction that loads a map's address gets; `map` is as in the instruction.
    fn map(&self, map: i32) -> anyhow::Result<u64>;

    /// The address of the only value of a map of global variables.
    fn globals(&mut self, map: i32, memory: &mut Memory) -> anyhow::Result<u64>;

    /// A field of the program's context, if that is what is at this address.
    fn context(&self, address: u64, size: usize) -> Option<anyhow::Result<u64>>;
}

pub(super) enum Called {
    Value(u64),
    /// Goes on with this program, and comes back no more.
    Program(Vec<Instruction>),
}

/// What an execution came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Execution {
    /// Instructions that were executed; one of 128 bits is one.
    pub(super) instructions: u64,
    /// Functions of the program's own that were called.
    pub(super) functions: u64,
    /// `r0` in the end.
    pub(super) result: u64,
}

struct Frame {
    return_to: usize,
    saved: [u64; SAVED.end - SAVED.start],
    pointer: u64,
}

struct Interpreter<'m, W> {
    world: &'m mut W,
    memory: &'m mut Memory,
    program: Vec<Instruction>,
    registers: [u64; 11],
    next: usize,
    frames: Vec<Frame>,
    functions: u64,
}

/// Executes a program whose context is at this address.
///
/// # Errors
///
/// It does what the verifier would not have let it do, or calls a helper that `world` lacks.
pub(super) fn execute(
    program: Vec<Instruction>,
    context: u64,
    world: &mut impl World,
    memory: &mut Memory,
) -> anyhow::Result<Execution> {
    let stack = memory.add(vec![0; STACK], Access::ReadWrite);
    let mut registers = [0; 11];
    registers[1] = context;
    registers[FRAME_POINTER] = stack + STACK as u64;
    let mut interpreter = Interpreter {
        world,
        memory,
        program,
        registers,
        next: 0,
        frames: Vec::new(),
        functions: 0,
    };
    for instructions in 1..=MOST_INSTRUCTIONS {
        let at = interpreter.next;
        let done = interpreter
            .step()
            .with_context(|| format!("instruction {at}"))?;
        if done {
            return Ok(Execution {
                instructions,
                functions: interpreter.functions,
                result: interpreter.registers[0],
            });
        }
    }
    bail!("no end after {MOST_INSTRUCTIONS} instructions")
}

impl<W: World> Interpreter<'_, W> {
    /// Whether that was the last one.
    fn step(&mut self) -> anyhow::Result<bool> {
        let instruction = self.fetch()?;
        let source = self.read(instruction.source)?;
        let destination = self.read(instruction.destination)?;
        let immediate = i64::from(instruction.immediate) as u64;
        let operand = if instruction.has_source_register() {
            source
        } else {
            immediate
        };
        match instruction.class() {
            class::ALU | class::ALU64 => {
                let result = compute(instruction, destination, operand)?;
                self.write(instruction.destination, result)?;
            }
            class::LD => self.load_wide(instruction)?,
            class::LDX => self.load(instruction, source)?,
            class::ST => self.store(instruction, destination, immediate)?,
            class::STX if instruction.mode() == ATOMIC => {
                self.change(instruction, destination, source)?;
            }
            class::STX => self.store(instruction, destination, source)?,
            class::JMP if instruction.operation() == CALL => self.call(instruction)?,
            class::JMP if instruction.operation() == EXIT => return Ok(self.leave()),
            class::JMP if instruction.operation() == ALWAYS => {
                self.jump(i64::from(instruction.offset))?;
            }
            class::JMP32 if instruction.operation() == ALWAYS => {
                self.jump(i64::from(instruction.immediate))?;
            }
            _ => {
                if holds(instruction, destination, operand)? {
                    self.jump(i64::from(instruction.offset))?;
                }
            }
        }
        Ok(false)
    }

    fn fetch(&mut self) -> anyhow::Result<Instruction> {
        let instruction = self.program.get(self.next);
        let instruction = *instruction.context("the program has no such instruction")?;
        self.next += 1;
        Ok(instruction)
    }

    fn read(&self, register: u8) -> anyhow::Result<u64> {
        let value = self.registers.get(usize::from(register));
        value.copied().context("no such register")
    }

    fn write(&mut self, register: u8, value: u64) -> anyhow::Result<()> {
        ensure!(
            usize::from(register) < FRAME_POINTER,
            "register {register} cannot be written"
        );
        self.registers[usize::from(register)] = value;
        Ok(())
    }

    fn jump(&mut self, distance: i64) -> anyhow::Result<()> {
        let target = self.next as i64 + distance;
        self.next = usize::try_from(target).context("a jump to before the program")?;
        Ok(())
    }

    /// The only instruction of 128 bits: a number, or the address of a map or of global variables.
    fn load_wide(&mut self, instruction: Instruction) -> anyhow::Result<()> {
        const NUMBER: u8 = 0;
        const MAP: u8 = 1;
        const GLOBALS: u8 = 2;
        ensure!(instruction.opcode == 0x18, "no such load: {instruction:?}");
        let upper = self.fetch()?.immediate as u32;
        let lower = instruction.immediate;
        let value = match instruction.source {
            NUMBER => u64::from(upper) << 32 | u64::from(lower as u32),
            MAP => self.world.map(lower)?,
            GLOBALS => self.world.globals(lower, self.memory)? + u64::from(upper),
            kind => bail!("load of a thing of kind {kind}"),
        };
        self.write(instruction.destination, value)
    }

    fn load(&mut self, instruction: Instruction, base: u64) -> anyhow::Result<()> {
        let (address, size) = (displaced(base, instruction), instruction.size());
        let value = match self.world.context(address, size) {
            Some(field) => field?,
            None => self.memory.load(address, size)?,
        };
        let value = match instruction.mode() {
            MEMORY => value,
            MEMORY_SIGNED => sign_extend(value, size),
            mode => bail!("load in mode {mode:#x}"),
        };
        self.write(instruction.destination, value)
    }

    fn store(&mut self, instruction: Instruction, base: u64, value: u64) -> anyhow::Result<()> {
        ensure!(
            instruction.mode() == MEMORY,
            "no such store: {instruction:?}"
        );
        let address = displaced(base, instruction);
        self.memory.store(address, instruction.size(), value)
    }

    /// Atomic operations (RFC 9669 §5.3): as nothing else runs, one after the other.
    fn change(&mut self, instruction: Instruction, base: u64, operand: u64) -> anyhow::Result<()> {
        const FETCH: i32 = 0x01;
        const EXCHANGE: i32 = 0xe1;
        const COMPARE_AND_EXCHANGE: i32 = 0xf1;
        let (address, size) = (displaced(base, instruction), instruction.size());
        ensure!(size >= 4, "an atomic operation on {size} bytes");
        ensure!(address.is_multiple_of(size as u64), "not aligned");
        let old = self.memory.load(address, size)?;
        let expected = if size == 4 {
            u64::from(self.registers[0] as u32)
        } else {
            self.registers[0]
        };
        let new = match instruction.immediate {
            EXCHANGE => operand,
            COMPARE_AND_EXCHANGE if old == expected => operand,
            COMPARE_AND_EXCHANGE => old,
            kind => match kind & !FETCH {
                0x00 => old.wrapping_add(operand),
                0x40 => old | operand,
                0x50 => old & operand,
                0xa0 => old ^ operand,
                _ => bail!("no such atomic operation: {instruction:?}"),
            },
        };
        self.memory.store(address, size, new)?;
        match instruction.immediate {
            COMPARE_AND_EXCHANGE => self.write(0, old),
            kind if kind & FETCH != 0 => self.write(instruction.source, old),
            _ => Ok(()),
        }
    }

    fn call(&mut self, instruction: Instruction) -> anyhow::Result<()> {
        const HELPER: u8 = 0;
        const FUNCTION: u8 = 1;
        match instruction.source {
            HELPER => {
                let [_, a, b, c, d, e, ..] = self.registers;
                let arguments = [a, b, c, d, e];
                match self
                    .world
                    .call(instruction.immediate, arguments, self.memory)?
                {
                    Called::Value(value) => self.registers[0] = value,
                    Called::Program(program) => {
                        ensure!(self.frames.is_empty(), "a tail call within a function");
                        self.program = program;
                        self.next = 0;
                    }
                }
                Ok(())
            }
            FUNCTION => {
                ensure!(self.frames.len() + 1 < DEEPEST, "calls are too deep");
                self.functions += 1;
                let mut saved = [0; SAVED.end - SAVED.start];
                saved.copy_from_slice(&self.registers[SAVED]);
                self.frames.push(Frame {
                    return_to: self.next,
                    saved,
                    pointer: self.registers[FRAME_POINTER],
                });
                let stack = self.memory.add(vec![0; STACK], Access::ReadWrite);
                self.registers[FRAME_POINTER] = stack + STACK as u64;
                self.jump(i64::from(instruction.immediate))
            }
            kind => bail!("a call of kind {kind}"),
        }
    }

    /// Whether that was the whole program.
    fn leave(&mut self) -> bool {
        let Some(frame) = self.frames.pop() else {
            return true;
        };
        self.registers[SAVED].copy_from_slice(&frame.saved);
        self.registers[FRAME_POINTER] = frame.pointer;
        self.next = frame.return_to;
        false
    }
}

const MEMORY: u8 = 0x60;
const MEMORY_SIGNED: u8 = 0x80;
const ATOMIC: u8 = 0xc0;
const ALWAYS: u8 = 0x00;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

fn displaced(base: u64, instruction: Instruction) -> u64 {
    base.wrapping_add(i64::from(instruction.offset) as u64)
}

#[cfg(test)]
mod tests;
