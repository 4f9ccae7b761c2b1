//! Packets in and packets out through the loaded XDP program (`BPF_PROG_TEST_RUN`). Needs root and
//! a BPF file system at `/sys/fs/bpf`.

mod connection;
mod counters;
mod full_nat;
mod out;
mod partial;
mod pass;
mod random;
mod refuse;
mod rewrite;
mod services;
mod spread;
mod table;
