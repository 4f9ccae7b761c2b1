use super::*;

/// Helper 1 adds up its arguments, helper 2 goes on with a program that gives 99.
struct Nothing;

impl World for Nothing {
    fn call(&mut self, helper: i32, arguments: [u64; 5], _: &mut Memory) -> anyhow::Result<Called> {
        match helper {
            1 => Ok(Called::Value(arguments.iter().sum())),
            2 => Ok(Called::Program(vec![set(0, 99), exit()])),
            _ => bail!("no such helper"),
        }
    }

    fn map(&self, _: i32) -> anyhow::Result<u64> {
        bail!("no maps")
    }

    fn globals(&mut self, _: i32, _: &mut Memory) -> anyhow::Result<u64> {
        bail!("no globals")
    }

    fn context(&self, _: u64, _: usize) -> Option<anyhow::Result<u64>> {
        None
    }
}

fn instruction(
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
) -> Instruction {
    Instruction {
        opcode,
        destination,
        source,
        offset,
        immediate,
    }
}

fn set(register: u8, immediate: i32) -> Instruction {
    instruction(class::ALU64 | 0xb0, register, 0, 0, immediate)
}

fn copy(destination: u8, source: u8) -> Instruction {
    instruction(class::ALU64 | 0xb8, destination, source, 0, 0)
}

/// `*(u64 *)(r10 + offset) = immediate`
fn store(offset: i16, immediate: i32) -> Instruction {
    instruction(class::ST | MEMORY | 0x18, 10, 0, offset, immediate)
}

/// `destination = *(u64 *)(r10 + offset)`
fn load(destination: u8, offset: i16) -> Instruction {
    instruction(class::LDX | MEMORY | 0x18, destination, 10, offset, 0)
}

/// On the 64 bits at `r10 - 8`, with `r2`.
fn atomic(kind: i32) -> Instruction {
    instruction(class::STX | ATOMIC | 0x18, 10, 2, -8, kind)
}

fn exit() -> Instruction {
    instruction(class::JMP | EXIT, 0, 0, 0, 0)
}

fn run(program: &[Instruction]) -> anyhow::Result<(u64, u64)> {
    let mut memory = Memory::default();
    let execution = execute(program.to_vec(), 0, &mut Nothing, &mut memory)?;
    Ok((execution.result, execution.instructions))
}

#[test]
fn an_instruction_of_128_bits_counts_once() {
    let program = [
        instruction(0x18, 0, 0, 0, -1),
        instruction(0, 0, 0, 0, 0x1234),
        exit(),
    ];
    assert_eq!(run(&program).unwrap(), (0x1234_ffff_ffff, 2));
}

#[test]
fn a_loop_counts_as_often_as_it_is_run() {
    let program = [
        set(0, 0),
        instruction(class::ALU64, 0, 0, 0, 1),
        // Back to the addition while it is below five.
        instruction(class::JMP | 0xa0, 0, 0, -2, 5),
        exit(),
    ];
    assert_eq!(run(&program).unwrap(), (5, 1 + 2 * 5 + 1));
    let endless = [instruction(class::JMP | ALWAYS, 0, 0, -1, 0)];
    assert!(run(&endless).is_err());
}

#[test]
fn memory_holds_what_was_stored_and_ends() {
    let byte = |offset| instruction(class::LDX | MEMORY | 0x10, 0, 10, offset, 0);
    let signed = instruction(class::LDX | MEMORY_SIGNED | 0x10, 0, 10, -8, 0);
    // Bytes of all ones, whatever the order.
    assert_eq!(run(&[store(-8, -1), byte(-8), exit()]).unwrap().0, 0xff);
    assert_eq!(run(&[store(-8, -1), signed, exit()]).unwrap().0, u64::MAX);
    assert!(run(&[byte(0), exit()]).is_err());
    assert!(run(&[store(-513, 0), exit()]).is_err());
}

#[test]
fn atomics_change_memory_and_say_what_was_there() {
    let result = |before: i32, expected: i32, operand: i32, kind: i32, then: Instruction| {
        let program = [
            store(-8, before),
            set(0, expected),
            set(2, operand),
            atomic(kind),
            then,
            exit(),
        ];
        run(&program).unwrap().0
    };
    let (memory, fetched, r0) = (load(0, -8), copy(0, 2), copy(0, 0));
    assert_eq!(result(5, 0, 3, 0x00, memory), 8);
    assert_eq!(result(5, 0, 3, 0x00, fetched), 3);
    assert_eq!(result(5, 0, 3, 0x01, fetched), 5);
    assert_eq!(result(5, 0, 3, 0x40, memory), 7);
    assert_eq!(result(5, 0, 3, 0x50, memory), 1);
    assert_eq!(result(5, 0, 3, 0xa0, memory), 6);
    assert_eq!(result(5, 0, 3, 0xe1, memory), 3);
    assert_eq!(result(5, 0, 3, 0xe1, fetched), 5);
    assert_eq!(result(5, 5, 3, 0xf1, memory), 3);
    assert_eq!(result(5, 5, 3, 0xf1, r0), 5);
    assert_eq!(result(5, 4, 3, 0xf1, memory), 5);
    assert_eq!(result(5, 4, 3, 0xf1, r0), 5);
}

#[test]
fn functions_have_a_stack_of_their_own_and_give_registers_back() {
    let call = |kind, immediate| instruction(class::JMP | CALL, 0, kind, 0, immediate);
    let program = [
        store(-8, 7),
        set(6, 1),
        call(1, 3),
        load(1, -8),
        instruction(class::ALU64 | 0x08, 0, 1, 0, 0),
        exit(),
        // The function.
        store(-8, 100),
        set(6, 2),
        set(0, 40),
        exit(),
    ];
    // 40 of the function, 7 of the caller's own stack.
    assert_eq!(run(&program).unwrap(), (47, 10));
    let mut memory = Memory::default();
    let execution = execute(program.to_vec(), 0, &mut Nothing, &mut memory);
    assert_eq!(execution.unwrap().functions, 1);
    assert!(run(&[call(1, -1)]).is_err());
    let helper = [
        set(1, 1),
        set(2, 2),
        set(3, 3),
        set(4, 4),
        set(5, 5),
        call(0, 1),
        exit(),
    ];
    assert_eq!(run(&helper).unwrap(), (15, 7));
    assert_eq!(run(&[call(0, 2), set(0, 1), exit()]).unwrap(), (99, 3));
    assert!(run(&[call(0, 3), exit()]).is_err());
}
