//! The generator, the program under test and the sinks, at their interfaces.

use anyhow::{Context as _, ensure};
use aya::programs::{
    Xdp,
    xdp::{XdpLink, XdpMode},
};

use super::{
    SLICE,
    cases::{CONNECTIONS, Case, Out, Subject},
};
use crate::{
    bench::program::{
        balancer::{self, ANY_NUMBER, Balancer},
        cases::Clients,
        generator::{Flows, Generator, NOTHING, SEND},
        handshake::establish,
        service::Service,
    },
    lab::{Lab, Netns, Topology},
};

/// Flows of each address family that the connection table is made for.
const CAPACITY: u32 = 1_000_000;

/// Fields are dropped in their order: what is attached in the lab before the lab.
pub(super) struct Rig {
    /// The program at the balancer's interface towards the client.
    attached: Option<(Subject, XdpLink)>,
    _sinks: [XdpLink; 2],
    generator: Generator,
    balancer: Balancer,
    services: Vec<Service>,
    /// Where the balancer sends what is for a backend.
    out: Out,
    /// Indices of the client's interface, and of the balancer's two.
    client: u32,
    arms: [u32; 2],
    lab: Lab,
}

/// What was counted so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// By the sinks.
    pub(super) arrived: u64,
    pub(super) balancer: balancer::Counts,
}

impl Counts {
    /// These, after so many packets of a case.
    pub(super) fn after(self, case: &Case, packets: u32) -> Self {
        let one = balancer::Counts {
            packets_in: u64::from(case.subject == Subject::Balancer),
            ..Default::default()
        };
        Self {
            arrived: self.arrived + u64::from(packets) * u64::from(case.out != Out::Nowhere),
            balancer: self.balancer.after(packets, one),
        }
    }
}

impl Rig {
    /// With the connections of these services, which come first through the program in test runs.
    pub(super) fn new(services: Vec<Service>) -> anyhow::Result<Self> {
        let mut generator = Generator::load()?;
        let mut balancer = Balancer::load(CAPACITY, CAPACITY, ANY_NUMBER)?;
        for service in &services {
            balancer.add(service.clone())?;
            let clients = Clients::of(service.is_ipv4()).established;
            let flows = 0..CONNECTIONS;
            establish(&mut balancer, &mut generator, service, clients, flows, None)?;
        }
        balancer.expect_established(services.len() as u64 * u64::from(CONNECTIONS))?;

        let topology = Topology {
            backends: 1,
            ..Topology::default()
        };
        let mut lab = Lab::with("wire", &topology)?;
        lab.clear_interfaces();
        let netns = lab.lb().netns();
        let arms = [
            netns.interface_index("eth0")?,
            netns.interface_index("eth1")?,
        ];
        netns.run(|| generator.redirect_to(arms[1]))?;
        let client = lab.client().netns().interface_index("eth0")?;
        let mut sink = |netns: &Netns| attach(netns, "eth0", generator.xdp("sink")?);
        let sinks = [
            sink(lab.client().netns())?,
            sink(lab.backends()[0].netns())?,
        ];
        Ok(Self {
            attached: None,
            _sinks: sinks,
            generator,
            balancer,
            services,
            out: Out::Nowhere,
            client,
            arms,
            lab,
        })
    }

    /// Attaches the program of a case, and leads its packets to where they shall go.
    pub(super) fn take(&mut self, case: &Case) -> anyhow::Result<()> {
        self.attach(case.subject)?;
        if case.subject == Subject::Balancer && self.out != case.out {
            let [back, through] = self.arms;
            let out = if case.out == Out::Through {
                through
            } else {
                back
            };
            let (balancer, services) = (&mut self.balancer, &self.services);
            // An index means an interface of the namespace that it is written in.
            self.lab.lb().netns().run(|| {
                let mut writes = services
                    .iter()
                    .flat_map(|service| service.write_backends(out));
                writes.try_for_each(|write| balancer.apply(&write))
            })?;
            self.out = case.out;
        }
        Ok(())
    }

    fn attach(&mut self, subject: Subject) -> anyhow::Result<()> {
        if self
            .attached
            .as_ref()
            .is_some_and(|(now, _)| *now == subject)
        {
            return Ok(());
        }
        self.attached = None;
        let program = match subject {
            Subject::Floor(name) => self.generator.xdp(name)?,
            Subject::Balancer => self.balancer.xdp()?,
        };
        let link = attach(self.lab.lb().netns(), "eth0", program)?;
        self.attached = Some((subject, link));
        Ok(())
    }

    /// Nanoseconds a frame, slice by slice, of frames that are made and go nowhere.
    pub(super) fn make(&mut self, case: &Case, slices: u32) -> anyhow::Result<Vec<f64>> {
        self.generator.test_floor(NOTHING)?;
        self.run(case, slices)
    }

    /// The same of frames that are made, sent and dealt with.
    pub(super) fn send(&mut self, case: &Case, slices: u32) -> anyhow::Result<Vec<f64>> {
        self.generator.test_floor(SEND)?;
        self.run(case, slices)
    }

    fn run(&mut self, case: &Case, slices: u32) -> anyhow::Result<Vec<f64>> {
        let (generator, client) = (&mut self.generator, self.client);
        ensure!(case.flows.is_power_of_two(), "flows are drawn by a mask");
        let flows = Flows::Random(case.flows);
        let netns = self.lab.client().netns();
        let times =
            netns.run(|| generator.run_live(&case.template, flows, slices, SLICE, client))?;
        Ok(times.iter().map(|time| time.as_secs_f64() * 1e9).collect())
    }

    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        Ok(Counts {
            arrived: self.generator.arrived()?,
            balancer: self.balancer.counts(&self.services)?,
        })
    }
}

/// Attaches a program in native mode until the link is dropped.
fn attach(netns: &Netns, interface: &str, program: &mut Xdp) -> anyhow::Result<XdpLink> {
    netns
        .run(|| {
            let link = program.attach(interface, XdpMode::Driver)?;
            program.take_link(link)
        })
        .with_context(|| format!("attach natively to {interface} of {}", netns.name()))
}
