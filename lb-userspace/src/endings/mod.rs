//! Ends connections so that both ends learn of it, also where they are silent (S-CT-6).
//!
//! A load balancer holds no sequence numbers, and a RST needs one. So an ending takes two steps:
//!
//! 1. The connection's record is marked as ended ([`crate::dataplane::Ender`]). From here on the
//!    packet path answers each segment of either side with a RST, whose number it takes from that
//!    very segment.
//! 2. Each end is prodded with an ACK whose numbers are drawn at random ([`segment`]). Nearly all
//!    of the numbers lie outside of the receive window, and a TCP answers such a segment with an
//!    ACK that carries its own (RFC 9293 §3.10.7.4). That ACK meets the marked record.
//!
//! Prods are repeated ([`schedule`]): numbers may hit the window, frames get lost, and Linux answers
//! no two of them within half a second (`tcp_invalid_ratelimit`). They leave as whole frames by the
//! way that the packet path would take ([`crate::wire`]), past routes and filters of the host.
//!
//! A daemon that dies after the first step leaves records that answer whatever is sent; the next
//! one prods what it finds marked.

mod schedule;
mod segment;
mod wire;

use std::{
    collections::BTreeSet,
    io,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use lb_common::flow::Tick;
use tracing::{debug, info, warn};

use self::{
    schedule::{Pace, Schedule},
    segment::Numbers,
    wire::Wire,
};
use crate::{
    dataplane::{Ended, EndedCounts, Ender, Endings, Prod},
    model::ServiceId,
    wire::Mouth,
};

/// Connections whose prods may be outstanding. What is to be ended beyond that waits unmarked.
const MAX_WAITING: usize = 1 << 20;
/// Frames a second: what ending a million connections at once costs the network.
const MAX_RATE: u32 = 50_000;
/// How often the clock is looked at for what has expired.
const INTERVAL: Duration = Duration::from_millis(250);

/// Starts the thread that ends connections: always those of the latest [`Endings`] that it was
/// sent. It goes on until the sender is dropped.
///
/// # Errors
///
/// The thread cannot be started.
pub fn spawn(ender: Arc<Ender>) -> io::Result<mpsc::Sender<Endings>> {
    let (sender, orders) = mpsc::channel();
    let wire = match Mouth::open() {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!("without packet sockets, ends of idle connections are not told: {error}");
            None
        }
    };
    thread::Builder::new()
        .name("endings".to_owned())
        .spawn(move || Reaper::new(ender, wire, Instant::now()).run(&orders))?;
    Ok(sender)
}

/// The connection table as far as endings are concerned.
trait Records {
    /// Names a record that was ended.
    type Ended: Copy;

    fn now(&self) -> Tick;
    /// [`Ender::keep_expired`]
    fn keep_expired(&self, services: &BTreeSet<ServiceId>);
    /// [`Ender::end`]
    fn end(
        &self,
        endings: &Endings,
        room: usize,
        patience: &dyn Fn(u64) -> u32,
        ended: &mut dyn FnMut(Self::Ended),
    ) -> EndedCounts;
    /// [`Ender::ended`]
    fn ended(&self, each: &mut dyn FnMut(Self::Ended));
    /// [`Ender::prods`]
    fn prods(&self, ended: Self::Ended) -> [Option<Prod>; 2];
}

impl Records for Arc<Ender> {
    type Ended = Ended;

    fn now(&self) -> Tick {
        Ender::now(self)
    }

    fn keep_expired(&self, services: &BTreeSet<ServiceId>) {
        Ender::keep_expired(self, services);
    }

    fn end(
        &self,
        endings: &Endings,
        room: usize,
        patience: &dyn Fn(u64) -> u32,
        ended: &mut dyn FnMut(Ended),
    ) -> EndedCounts {
        Ender::end(self, endings, room, patience, ended)
    }

    fn ended(&self, each: &mut dyn FnMut(Ended)) {
        Ender::ended(self, each);
    }

    fn prods(&self, ended: Ended) -> [Option<Prod>; 2] {
        Ender::prods(self, ended)
    }
}

struct Reaper<R: Records, W> {
    records: R,
    /// `None`: nobody can be prodded.
    wire: Option<W>,
    numbers: Numbers,
    endings: Endings,
    /// When the table was last swept; `None`: there is something new to look for.
    swept: Option<Tick>,
    schedule: Schedule<R::Ended>,
    pace: Pace,
}

impl<R: Records, W: Wire> Reaper<R, W> {
    fn new(records: R, wire: Option<W>, now: Instant) -> Self {
        let mut schedule = Schedule::new(MAX_WAITING);
        records.ended(&mut |ended| schedule.add(ended, now));
        Self {
            records,
            wire,
            numbers: Numbers::new(),
            endings: Endings::default(),
            swept: None,
            schedule,
            pace: Pace::new(MAX_RATE, now),
        }
    }

    fn run(mut self, orders: &mpsc::Receiver<Endings>) {
        loop {
            let order = match self.turn(Instant::now()) {
                Some(pause) => orders.recv_timeout(pause),
                None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match order {
                // Whatever stands behind it is newer.
                Ok(order) => self.obey(orders.try_iter().last().unwrap_or(order)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn obey(&mut self, endings: Endings) {
        self.records.keep_expired(&endings.expiring);
        if !endings.backends.is_subset(&self.endings.backends) {
            self.swept = None;
        }
        self.endings = endings;
    }

    /// Does what is due; how long there is nothing to do then, `None` for as long as nobody orders
    /// anything.
    fn turn(&mut self, now: Instant) -> Option<Duration> {
        self.sweep(now);
        self.prod(now);
        let sweep = (!self.endings.is_empty()).then_some(INTERVAL);
        let due = self.schedule.next_due();
        let prod = due.map(|due| self.pace.next(now).max(due) - now);
        sweep.into_iter().chain(prod).min()
    }

    /// Looks through the table, at most once a tick: nothing expires between two of them, and
    /// what a packet has kept from being ended, or has just become established, is ended with the
    /// next.
    fn sweep(&mut self, now: Instant) {
        let tick = self.records.now();
        let room = self.schedule.room();
        if self.endings.is_empty() || self.swept == Some(tick) || room == 0 {
            return;
        }
        self.swept = Some(tick);
        // A record lasts until its last prod, however many have to leave before.
        let waiting = self.schedule.len() as u64;
        let patience = |count: u64| {
            let frames = (waiting + count) * 2 * schedule::PRODS as u64;
            u32::try_from(frames / u64::from(MAX_RATE)).unwrap_or(u32::MAX)
        };
        let schedule = &mut self.schedule;
        let counts = self
            .records
            .end(&self.endings, room, &patience, &mut |ended| {
                schedule.add(ended, now);
            });
        if counts != EndedCounts::default() {
            info!(
                expired = counts.expired,
                of_backends_that_are_down = counts.of_backends,
                "ended connections"
            );
        }
    }

    fn prod(&mut self, now: Instant) {
        while self.pace.is_free(now)
            && let Some(due) = self.schedule.pop(now)
        {
            let prods = self.records.prods(due.item);
            for prod in prods.iter().flatten() {
                self.pace.spend(now);
                self.send(prod);
            }
            if prods != [None; 2] {
                self.schedule.again(due, now);
            }
        }
    }

    fn send(&mut self, prod: &Prod) {
        let Some(wire) = &mut self.wire else { return };
        let (sequence, acknowledgement) = self.numbers.draw();
        let Some(frame) = segment::ack(prod, sequence, acknowledgement) else {
            return;
        };
        // It is repeated anyway.
        if let Err(error) = wire.send(prod.hop.ifindex(), &frame) {
            debug!(to = %prod.to, ifindex = prod.hop.ifindex(), "cannot send: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
