//! Web servers, proxies and clients that run in the lab, and what the machine works meanwhile: what
//! the demo and the benchmarks share.

pub(crate) mod cpu;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod nginx;
pub(crate) mod paced;
pub(crate) mod wrk;
