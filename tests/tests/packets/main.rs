//! Packets in and packets out through the loaded XDP program (`BPF_PROG_TEST_RUN`). Needs root and
//! a BPF file system at `/sys/fs/bpf`.

mod answers;
mod connection;
mod counters;
mod decap;
mod flood;
mod full_nat;
mod icmp;
mod mss;
mod one_way;
mod out;
mod partial;
mod pass;
mod random;
mod refuse;
mod rewrite;
mod samples;
mod services;
mod spread;
mod table;
