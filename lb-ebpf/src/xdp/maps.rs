//! The maps, and typed access to them: what is unsafe about maps stays in this file.

use aya_ebpf::{
    Global,
    bindings::{bpf_func_id::BPF_FUNC_tail_call, xdp_action},
    btf_maps,
    macros::{btf_map, map},
    maps::{Array, DevMapHash, HashMap, PerCpuArray, ProgramArray, RingBuf},
    programs::XdpContext,
};
use lb_common::{
    endpoints::{self, Line, Sought},
    flood::FloodMeter,
    flow::{Bucket4, Bucket6, Tick, Word},
    hash::{HashKey, fast_range},
    rate::TickMeter,
    reason::Reason,
    records::{
        BACKEND_LINES, Backend, BackendCounters, Hop, LISTEN_LINES, MAX_BACKENDS, MAX_LAST_HOPS,
        MAX_SERVICES, MAX_SLOTS, MAX_SNAT_ADDRESSES, SAMPLE_BYTES, Sample, Service, Settings, Slot,
        SlotPair, Tunnel, pairs_in_half, program,
    },
    snat::{BUCKETS, SnatPool},
};

use super::{Program, errand::Errand, family::Family, shared::SharedWord};

/// The daemon maps these into its memory.
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Inner maps may have another number of entries than the template.
const BPF_F_INNER_MAP: usize = 1 << 12;

pub(crate) type EndpointTable = Array<Line<SharedWord>>;
type PortTables<B> = btf_maps::ArrayOfMaps<
    btf_maps::Array<B, { BUCKETS as usize }, { BPF_F_MMAPABLE as usize }>,
    { MAX_SNAT_ADDRESSES as usize },
>;

// What the daemon sets at load time; constants to the verifier.
#[unsafe(no_mangle)]
static FLOW_KEY0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static FLOW_KEY1: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SELECTION_KEY0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static SELECTION_KEY1: Global<u64> = Global::new(0);
/// Buckets of [`FLOWS4`].
#[unsafe(no_mangle)]
pub(crate) static BUCKETS4: Global<u32> = Global::new(1);
/// Buckets of [`FLOWS6`].
#[unsafe(no_mangle)]
pub(crate) static BUCKETS6: Global<u32> = Global::new(1);
/// Nanoseconds a jiffy.
#[unsafe(no_mangle)]
static JIFFY: Global<u64> = Global::new(1);
/// 1 where packets may have several buffers (Linux 5.18).
#[unsafe(no_mangle)]
static MULTI_BUFFER: Global<u32> = Global::new(0);

/// Services by id.
#[map]
static SERVICES: Array<Service> = Array::with_max_entries(MAX_SERVICES, BPF_F_MMAPABLE);
/// Backends by index.
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(MAX_BACKENDS, BPF_F_MMAPABLE);
/// The way back to a client, by last-hop index.
#[map]
static LAST_HOPS: Array<Hop> = Array::with_max_entries(MAX_LAST_HOPS, 0);
/// Last-hop index by last hop.
#[map]
static LAST_HOP_INDEX: HashMap<Hop, u32> = HashMap::with_max_entries(MAX_LAST_HOPS, 0);
/// The index that the last hops of a hash were given last.
#[map]
static LAST_HOP_HINTS: Array<u32> = Array::with_max_entries(MAX_HINTS, 0);
/// How many last hops there are.
#[map]
static LAST_HOP_COUNT: Array<SharedWord> = Array::with_max_entries(1, 0);
/// Service id by listen address and port.
#[map]
pub(crate) static LISTENS4: EndpointTable = Array::with_max_entries(LISTEN_LINES, BPF_F_MMAPABLE);
#[map]
pub(crate) static LISTENS6: EndpointTable = Array::with_max_entries(LISTEN_LINES, BPF_F_MMAPABLE);
/// Backend index by address and port: the first of those which share them.
#[map]
pub(crate) static REPLIERS4: EndpointTable = Array::with_max_entries(BACKEND_LINES, BPF_F_MMAPABLE);
#[map]
pub(crate) static REPLIERS6: EndpointTable = Array::with_max_entries(BACKEND_LINES, BPF_F_MMAPABLE);
/// Addresses that at least one service listens on.
#[map]
pub(crate) static SERVICE_ADDRESSES4: HashMap<u32, u32> =
    HashMap::with_max_entries(MAX_SERVICES, 0);
#[map]
pub(crate) static SERVICE_ADDRESSES6: HashMap<[u64; 2], u32> =
    HashMap::with_max_entries(MAX_SERVICES, 0);
/// The connection tables; the daemon sets their size.
#[map]
pub(crate) static FLOWS4: Array<Bucket4<SharedWord>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOWS6: Array<Bucket6<SharedWord>> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Which of their buckets have overflowed ([`lb_common::flow::Table::overflow_word`]).
#[map]
pub(crate) static FLOW_OVERFLOWS4: Array<SharedWord> = Array::with_max_entries(1, BPF_F_MMAPABLE);
#[map]
pub(crate) static FLOW_OVERFLOWS6: Array<SharedWord> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// Slot tables of [`MAX_SLOTS`] slots, by service id: each an array of two halves, made with the
/// service. All have one size, so that the kernel makes instructions of a lookup in them.
#[btf_map]
static SLOT_TABLES: btf_maps::ArrayOfMaps<
    btf_maps::Array<
        SlotPair,
        { 2 * pairs_in_half(MAX_SLOTS) as usize },
        { BPF_F_MMAPABLE as usize },
    >,
    { MAX_SERVICES as usize },
> = btf_maps::ArrayOfMaps::new();
/// Those of fewer slots: a lookup is a call.
#[btf_map]
static SMALL_SLOT_TABLES: btf_maps::ArrayOfMaps<
    btf_maps::Array<SlotPair, 1, { BPF_F_MMAPABLE as usize | BPF_F_INNER_MAP }>,
    { MAX_SERVICES as usize },
> = btf_maps::ArrayOfMaps::new();
#[map]
static BACKEND_COUNTERS: PerCpuArray<BackendCounters> =
    PerCpuArray::with_max_entries(MAX_BACKENDS, 0);
/// Packets by service and reason: [`Reason::ROW`] counters a service.
#[map]
static REASON_COUNTERS: PerCpuArray<u64> =
    PerCpuArray::with_max_entries(MAX_SERVICES * Reason::ROW, 0);
/// Outer headers, by service id.
#[map]
static TUNNELS: Array<Tunnel> = Array::with_max_entries(MAX_SERVICES, 0);
/// Whom a `full-nat` service's connections are sent from, by service id.
#[map]
static SNAT_POOLS: Array<SnatPool> = Array::with_max_entries(MAX_SERVICES, 0);
/// Addresses to send from, by index; as in [`Service::address`].
#[map]
static SNAT_ADDRESSES: Array<[u8; 16]> = Array::with_max_entries(MAX_SNAT_ADDRESSES, 0);
/// Their indices, by address.
#[map]
pub(crate) static SNAT_BY_ADDRESS4: HashMap<u32, u32> =
    HashMap::with_max_entries(MAX_SNAT_ADDRESSES, 0);
#[map]
pub(crate) static SNAT_BY_ADDRESS6: HashMap<[u64; 2], u32> =
    HashMap::with_max_entries(MAX_SNAT_ADDRESSES, 0);
/// Their ports: for each an array that is made with the address.
#[btf_map]
pub(crate) static SNAT_PORTS4: PortTables<Bucket4<SharedWord>> = PortTables::new();
#[btf_map]
pub(crate) static SNAT_PORTS6: PortTables<Bucket6<SharedWord>> = PortTables::new();
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static FLOOD_METER: PerCpuArray<FloodMeter> = PerCpuArray::with_max_entries(1, 0);
/// What has been done in a tick.
#[map]
static TICK_METERS: PerCpuArray<TickMeter> = PerCpuArray::with_max_entries(TickMeter::COUNT, 0);
/// Refused packets, for the daemon.
#[map]
static SAMPLES: RingBuf = RingBuf::with_byte_size(SAMPLE_BYTES, 0);
#[map]
static ERRAND: PerCpuArray<Errand> = PerCpuArray::with_max_entries(1, 0);
/// The other programs, by [`Program`].
#[map]
static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(program::COUNT, 0);
/// Interfaces that packets may be redirected to, by index.
#[map]
static TX_PORTS: DevMapHash = DevMapHash::with_max_entries(256, 0);

/// Whether the kernel has buffers behind the first one, and the helper that counts their bytes: the
/// verifier never comes to see a call behind this where it is false.
#[inline(always)]
pub(crate) fn is_multi_buffer() -> bool {
    MULTI_BUFFER.load() != 0
}

#[inline(always)]
pub(crate) fn nanoseconds_a_jiffy() -> u64 {
    JIFFY.load()
}

#[inline(always)]
pub(crate) fn flow_key() -> HashKey {
    HashKey {
        k0: FLOW_KEY0.load(),
        k1: FLOW_KEY1.load(),
    }
}

#[inline(always)]
pub(crate) fn selection_key() -> HashKey {
    HashKey {
        k0: SELECTION_KEY0.load(),
        k1: SELECTION_KEY1.load(),
    }
}

/// The service that listens there.
#[inline(always)]
pub(crate) fn service_at<F: Family>(address: F::Address, port: [u8; 2]) -> Option<u16> {
    let id = seek(F::listens(), LISTEN_LINES, F::endpoint(address, port))?;
    let is_it = |it: &Service| F::address(&it.address) == address && it.port == port;
    (F::ENDPOINTS_ARE_EXACT || service(id).is_some_and(is_it)).then_some(id)
}

/// Whether any service listens on this address.
#[inline(always)]
pub(crate) fn is_service_address<F: Family>(address: F::Address) -> bool {
    // SAFETY: the value is not read.
    unsafe { F::service_addresses().get(address) }.is_some()
}

/// The first backend with this address and port.
#[inline(always)]
pub(crate) fn backend_at<F: Family>(address: F::Address, port: [u8; 2]) -> Option<u16> {
    let index = seek(F::repliers(), BACKEND_LINES, F::endpoint(address, port))?;
    let is_it = |it: &Backend| F::address(&it.address) == address && it.port == port;
    (F::ENDPOINTS_ARE_EXACT || backend(index).is_some_and(is_it)).then_some(index)
}

#[inline(always)]
fn seek(table: &EndpointTable, lines: u32, key: u64) -> Option<u16> {
    let home = endpoints::home(key, lines);
    for n in 0..endpoints::WINDOW {
        match table.get((home + n) & (lines - 1))?.find(key) {
            Sought::Here(index) => return Some(index),
            Sought::Nowhere => return None,
            Sought::Further => {}
        }
    }
    None
}

#[inline(always)]
fn lookup<K>(map: &HashMap<K, u32>, key: &K) -> Option<u16> {
    // SAFETY: the value is one aligned word, and an entry that the daemon removes at this moment
    // is reused no sooner than it is written whole.
    unsafe { map.get(key) }.map(|&index| index as u16)
}

#[inline(always)]
pub(crate) fn service(id: u16) -> Option<&'static Service> {
    SERVICES
        .get(u32::from(id))
        .filter(|service| service.slots != 0)
}

#[inline(always)]
pub(crate) fn backend(index: u16) -> Option<&'static Backend> {
    BACKENDS
        .get(u32::from(index))
        .filter(|backend| backend.service != 0)
}

#[inline(always)]
pub(crate) fn last_hop(index: u16) -> Option<&'static Hop> {
    LAST_HOPS
        .get(u32::from(index))
        .filter(|hop| hop.ifindex() != 0)
}

/// The index of a last hop, which is given one if it is new; 0 if there is no more room.
#[inline(always)]
pub(crate) fn last_hop_index(hop: &Hop) -> u16 {
    let hint = LAST_HOP_HINTS.get_ptr_mut(hop.hash() % MAX_HINTS);
    if let Some(hint) = hint {
        // SAFETY: an aligned word, which other CPUs may write at the same time: whatever it says
        // is made sure of.
        let index = unsafe { hint.read_volatile() } as u16;
        if last_hop(index) == Some(hop) {
            return index;
        }
    }
    let index = find_last_hop_index(hop);
    if let Some(hint) = hint {
        // SAFETY: as above.
        unsafe { hint.write_volatile(index.into()) };
    }
    index
}

/// Last hops that are found without a search, where their hashes differ.
const MAX_HINTS: u32 = 256;

#[inline(always)]
fn find_last_hop_index(hop: &Hop) -> u16 {
    // SAFETY: as in `lookup`; last hops are never removed.
    if let Some(&index) = unsafe { LAST_HOP_INDEX.get(hop) } {
        return index as u16;
    }
    let Some(index) = next_last_hop_index() else {
        return 0;
    };
    if LAST_HOPS.set(index, hop, 0).is_err() {
        return 0;
    }
    match LAST_HOP_INDEX.insert(hop, index, 0) {
        Ok(()) => index as u16,
        Err(_) => 0,
    }
}

/// An index that nobody else is given. Two CPUs that meet the same hop at once may take two: both
/// lead there.
#[inline(always)]
fn next_last_hop_index() -> Option<u32> {
    let count = LAST_HOP_COUNT.get(0)?;
    for _ in 0..LAST_HOP_RACERS {
        let taken = count.load();
        let next = taken + 1;
        if next >= u64::from(MAX_LAST_HOPS) {
            return None;
        }
        if count.replace(taken, next) {
            return Some(next as u32);
        }
    }
    None
}

/// Lost races for an index after which this packet's reply is left to the kernel's routing table.
const LAST_HOP_RACERS: u32 = 4;

/// The slot of a service's table that a hash falls on.
#[inline(always)]
pub(crate) fn slot(id: u16, service: &Service, hash: u64) -> Option<Slot> {
    let slot = fast_range((hash >> 32) as u32, service.slots);
    let index = service.half * pairs_in_half(service.slots) + slot / 2;
    let id = u32::from(id);
    let pair = match service.slots {
        MAX_SLOTS => SLOT_TABLES.get_value(id, &index),
        _ => SMALL_SLOT_TABLES.get_value(id, &index),
    }?;
    pair.slots.get((slot % 2) as usize).copied()
}

/// Remembers that a connection of this service has no record.
#[inline(always)]
pub(crate) fn expect_untracked_replies(id: u16, until: Tick) {
    if let Some(service) = SERVICES.get_ptr_mut(u32::from(id)) {
        // SAFETY: an aligned word of a map that nobody else writes but other CPUs doing the same.
        // It is written once a tick at most, because every packet to the service reads its line.
        unsafe {
            let word = &raw mut (*service).untracked_until;
            if core::ptr::read_volatile(word) != until.get() {
                core::ptr::write_volatile(word, until.get());
            }
        };
    }
}

/// The outer headers of a service's packets.
#[inline(always)]
pub(crate) fn tunnel(id: u16) -> Option<&'static Tunnel> {
    TUNNELS.get(u32::from(id))
}

/// Whom a service's connections are sent from.
#[inline(always)]
pub(crate) fn snat_pool(id: u16) -> Option<&'static SnatPool> {
    SNAT_POOLS.get(u32::from(id))
}

/// The address with this index.
#[inline(always)]
pub(crate) fn snat_address(index: u16) -> Option<&'static [u8; 16]> {
    SNAT_ADDRESSES.get(u32::from(index))
}

/// The index of this address, if connections are sent from it.
#[inline(always)]
pub(crate) fn snat_address_index<F: Family>(address: F::Address) -> Option<u16> {
    lookup(F::snat_map(), &address)
}

#[inline(always)]
pub(crate) fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// This CPU's.
#[inline(always)]
pub(crate) fn flood_meter() -> Option<&'static mut FloodMeter> {
    // SAFETY: this CPU's own; the program is not preempted by another XDP program.
    FLOOD_METER
        .get_ptr_mut(0)
        .map(|meter| unsafe { &mut *meter })
}

/// This CPU's, by an index that [`TickMeter`] knows.
#[inline(always)]
pub(crate) fn tick_meter(index: u32) -> Option<&'static mut TickMeter> {
    // SAFETY: as in `flood_meter`.
    TICK_METERS
        .get_ptr_mut(index)
        .map(|meter| unsafe { &mut *meter })
}

/// Leaves a sample to the daemon, if there is room for it.
#[inline(always)]
pub(crate) fn leave_sample(sample: impl FnOnce() -> Sample) {
    if let Some(mut entry) = SAMPLES.reserve::<Sample>(0) {
        entry.write(sample());
        entry.submit(0);
    }
}

/// What the program before this one has left on this CPU.
#[inline(always)]
pub(crate) fn errand() -> Option<&'static Errand> {
    ERRAND.get(0)
}

/// For [`continue_with`].
#[inline(always)]
pub(crate) fn leave_errand(write: impl FnOnce(&mut Errand)) {
    if let Some(errand) = ERRAND.get_ptr_mut(0) {
        // SAFETY: as in `flood_meter`.
        write(unsafe { &mut *errand });
    }
}

/// Leaves the packet to another program.
#[inline(always)]
pub(crate) fn continue_with(ctx: &XdpContext, program: Program) -> u32 {
    match program {
        Program::Tunnel => jump::<{ Program::Tunnel as u32 }>(ctx),
        Program::FullNat4 => jump::<{ Program::FullNat4 as u32 }>(ctx),
        Program::FullNat6 => jump::<{ Program::FullNat6 as u32 }>(ctx),
        Program::Icmp => jump::<{ Program::Icmp as u32 }>(ctx),
        Program::Refuse => jump::<{ Program::Refuse as u32 }>(ctx),
        Program::Open4 => jump::<{ Program::Open4 as u32 }>(ctx),
        Program::Open6 => jump::<{ Program::Open6 as u32 }>(ctx),
        Program::Rivals4 => jump::<{ Program::Rivals4 as u32 }>(ctx),
        Program::Rivals6 => jump::<{ Program::Rivals6 as u32 }>(ctx),
        Program::Mss => jump::<{ Program::Mss as u32 }>(ctx),
    }
    // Only where the entry is empty.
    match program {
        Program::Refuse => xdp_action::XDP_DROP,
        _ => xdp_action::XDP_ABORTED,
    }
}

/// Jumps to a program; returns only where there is none.
///
/// Where the index is a constant at the call itself, the kernel makes it a direct jump. The compiler
/// would rather make one call of them all, with an index from wherever it came: an indirect jump,
/// which costs a misprediction each time where retpolines are in force.
#[inline(always)]
fn jump<const INDEX: u32>(ctx: &XdpContext) {
    // SAFETY: calls bpf_tail_call with the context, the map, and the index; the registers that a
    // helper overwrites are given up. Every entry is an XDP program of this object, which the daemon
    // has put there, and nothing here has a destructor.
    unsafe {
        core::arch::asm!(
            "r3 = {index}",
            "call {helper}",
            index = const INDEX,
            helper = const BPF_FUNC_tail_call,
            inout("r1") ctx.ctx => _,
            inout("r2") &raw const PROGRAMS => _,
            lateout("r0") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
        );
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

#[inline(always)]
pub(crate) fn count_packet(backend: u16, direction: Direction, bytes: usize, connections: u64) {
    let Some(counters) = BACKEND_COUNTERS.get_ptr_mut(u32::from(backend)) else {
        return;
    };
    // SAFETY: this CPU's own counters; the program is not preempted by another XDP program.
    let counters = unsafe { &mut *counters };
    match direction {
        Direction::In => {
            counters.connections += connections;
            counters.packets_in += 1;
            counters.bytes_in += bytes as u64;
        }
        Direction::Out => {
            counters.packets_out += 1;
            counters.bytes_out += bytes as u64;
        }
    }
}

#[inline(always)]
pub(crate) fn count_reason(service: u16, reason: Reason) {
    let index = u32::from(service) * Reason::ROW + reason as u32;
    if let Some(counter) = REASON_COUNTERS.get_ptr_mut(index) {
        // SAFETY: as in `count_packet`.
        unsafe { *counter += 1 };
    }
}

/// Sends the packet out through another interface; whether that is possible.
#[inline(always)]
pub(crate) fn redirect(ifindex: u32) -> Result<u32, u32> {
    TX_PORTS.redirect(ifindex, 0)
}
