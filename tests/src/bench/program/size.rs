//! How large the programs are.

use aya::programs::ProgramInfo;
use serde::{Deserialize, Serialize};

/// One of the data plane's programs as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramSize {
    pub name: String,
    /// Instructions after the verifier; `None` where the kernel does not say.
    pub instructions: Option<u32>,
    /// Bytes of machine code.
    pub jited_bytes: u32,
    /// Instructions that the verifier has walked, each as often as it came by.
    pub verified_instructions: Option<u32>,
}

/// An instruction of BPF.
const INSTRUCTION_BYTES: u32 = 8;

impl ProgramSize {
    pub(super) fn of((name, info): &(String, ProgramInfo)) -> Self {
        Self {
            name: name.clone(),
            instructions: info
                .size_translated()
                .map(|bytes| bytes / INSTRUCTION_BYTES),
            jited_bytes: info.size_jitted(),
            verified_instructions: info.verified_instruction_count(),
        }
    }
}
