//! `cargo xtask fuzz`: the loaded program against the model ([`crate::model`]), packet by packet.
//!
//! A *scene* is a set of services and backends ([`world`]) and a sequence of steps ([`traffic`]):
//! packets of few clients, so that connections are hit, many of them with something wrong
//! ([`mutate`]); and backends that come and go, connections that end and expire. Program and model
//! take every step ([`rig`]) and have to agree on the verdict, on every byte of the frame, on the
//! connection concerned, and at intervals on every counter and record. What differs is shrunk to the
//! fewest steps ([`shrink`]) and printed.
//!
//! Everything follows from the seed. Every scene has a number and its own random numbers, so that a
//! scene can be run alone.

mod clock;
mod compare;
mod intact;
mod last_hops;
mod meters;
mod mutate;
mod ports;
mod random;
mod report;
mod rig;
mod shrink;
mod step;
mod table;
mod tally;
mod traffic;
mod world;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use lb_userspace::dataplane::MapWrite;

use self::{
    random::Random,
    report::Finding,
    rig::{Mismatch, Rig, Tried, Trouble},
    step::Step,
    tally::Tally,
    traffic::Traffic,
    world::World,
};
use crate::{model::Keys, packets::in_new_namespace};

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Packets to send.
    pub packets: u64,
    pub seed: u64,
    /// Only the scene with this number.
    pub scene: Option<u64>,
    /// Programs that are loaded and tried side by side.
    pub threads: usize,
}

/// Steps of a scene.
const STEPS: usize = 3_000;
/// Steps after which all counters and records are compared.
const INTERVAL: usize = 1_000;
/// Packets after which everything that can happen must have happened.
const ENOUGH: u64 = 200_000;

/// What the threads share.
struct Run {
    options: Options,
    scene: AtomicU64,
    packets: AtomicU64,
    stop: AtomicBool,
    tally: Mutex<Tally>,
    finding: Mutex<Option<Finding>>,
}

/// Runs until enough packets were sent, or program and model differ; then says how and why.
///
/// # Errors
///
/// Program and model differ; something that must happen never did; or the kernel refuses what is
/// needed to try.
pub fn run(options: Options) -> Result<()> {
    let run = Run {
        options,
        scene: AtomicU64::new(0),
        packets: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        tally: Mutex::default(),
        finding: Mutex::default(),
    };
    let start = Instant::now();
    println!("seed {}: {} packets", options.seed, options.packets);
    let threads = if options.scene.is_some() {
        1
    } else {
        options.threads.max(1)
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work(&run))).collect();
        let mut told = Instant::now();
        while workers.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(50));
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                tell(&run, start);
            }
        }
        for worker in workers {
            match worker.join() {
                Ok(result) => result?,
                Err(_) => bail!("a thread has panicked"),
            }
        }
        Ok(())
    })?;
    if let Some(finding) = lock(&run.finding).take() {
        println!("{finding}");
        bail!("program and model differ");
    }
    let tally = lock(&run.tally);
    println!(
        "{tally}\n  0 mismatches in {:.0} s",
        start.elapsed().as_secs_f64()
    );
    let missing = tally.missing();
    if options.scene.is_none() && tally.packets >= ENOUGH && !missing.is_empty() {
        bail!("never happened: {}", missing.join(", "));
    }
    Ok(())
}

fn tell(run: &Run, start: Instant) {
    let packets = run.packets.load(Ordering::Relaxed);
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{packets} packets, {} scenes, {:.0} packets/s",
        run.scene.load(Ordering::Relaxed),
        packets as f64 / seconds
    );
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(run: &Run) -> Result<()> {
    let mut result = Ok(());
    in_new_namespace(|| result = scenes(run));
    if result.is_err() {
        run.stop.store(true, Ordering::Relaxed);
    }
    result
}

fn scenes(run: &Run) -> Result<()> {
    let mut random = Random::new(run.options.seed, u64::MAX);
    let mut rig = Rig::new(Keys(std::array::from_fn(|_| random.bits())))?;
    loop {
        let number = run.scene.fetch_add(1, Ordering::Relaxed);
        let number = run.options.scene.unwrap_or(number);
        let mut tally = Tally::default();
        let found = scene(&mut rig, run.options.seed, number, &mut tally)?;
        lock(&run.tally).add(&tally);
        let packets = run.packets.fetch_add(tally.packets, Ordering::Relaxed) + tally.packets;
        if let Some(finding) = found {
            run.stop.store(true, Ordering::Relaxed);
            lock(&run.finding).get_or_insert(finding);
        }
        let enough = packets >= run.options.packets || run.options.scene.is_some();
        if enough || run.stop.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
}

/// Runs a scene; what was found.
fn scene(rig: &mut Rig, seed: u64, number: u64, tally: &mut Tally) -> Result<Option<Finding>> {
    let mut random = Random::new(seed, number);
    let world = World::random(&mut random);
    let scene = world.set_up();
    let mut traffic = Traffic { random, world };
    rig.set(&scene)?;
    let mut steps: Vec<Step> = Vec::with_capacity(STEPS);
    for n in 1..=STEPS {
        let step = traffic.next(rig.model());
        steps.push(step);
        let mut tried = rig.perform(&steps[n - 1], tally);
        if tried.is_ok() && n % INTERVAL == 0 {
            tried = rig.compare_all();
        }
        if let Some(mismatch) = mismatch(tried)? {
            println!("scene {number}, step {n}: {mismatch}\nshrinking …");
            let steps = shrink::shrink(&steps, |steps| Ok(replay(rig, &scene, steps)?.is_some()))?;
            let mismatch = replay(rig, &scene, &steps)?.unwrap_or(mismatch);
            return Ok(Some(Finding {
                seed,
                number,
                scene,
                steps,
                mismatch,
            }));
        }
    }
    tally.count_reasons(rig.model().counters());
    Ok(None)
}

/// Runs these steps, compares everything behind the last; what was found.
fn replay(rig: &mut Rig, scene: &[MapWrite], steps: &[Step]) -> Result<Option<Mismatch>> {
    rig.set(scene)?;
    let mut tally = Tally::default();
    let mut perform = || {
        for step in steps {
            rig.perform(step, &mut tally)?;
        }
        rig.compare_all()
    };
    mismatch(perform())
}

fn mismatch(tried: Tried) -> Result<Option<Mismatch>> {
    match tried {
        Ok(()) => Ok(None),
        Err(Trouble::Mismatch(mismatch)) => Ok(Some(mismatch)),
        Err(Trouble::Failure(error)) => Err(error),
    }
}
