//! Whole behaviour: real clients, real servers, the real daemon, in network namespaces.

mod setup;
mod spread;
