//! The namespace lab, packets through the loaded program, and what end-to-end tests, the demo and the
//! benchmarks share.

pub mod bench;
mod clock;
pub mod demo;
pub mod fuzz;
pub mod lab;
pub mod model;
pub mod packets;
mod web;
