//! `full-nat`: both addresses and both ports are translated, and a connection's port is its own.

mod rewrite;
