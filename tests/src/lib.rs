//! The namespace lab, and what end-to-end tests, the demo and the benchmarks share.

pub mod bench;
pub mod lab;
