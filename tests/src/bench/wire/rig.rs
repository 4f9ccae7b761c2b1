//! The generator, the program under test and the sinks, at their interfaces.

use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use aya::programs::{Xdp, XdpMode, xdp::XdpLink};

use super::{
    SLICE,
    cases::{Case, Out, Subject},
};
use crate::{
    bench::{
        balancer::{self, Balancer, Service},
        frame::Template,
        generator::{Flows, Generator, NOTHING, SEND},
    },
    lab::{Lab, Netns},
};

/// Fields are dropped in their order: what is attached in the lab before the lab.
pub(super) struct Rig {
    /// The program at the balancer's interface towards the client.
    attached: Option<(Subject, XdpLink)>,
    _sinks: [XdpLink; 2],
    out: Out,
    generator: Generator,
    balancer: Balancer,
    /// Indices of the client's interface, and the balancer's two.
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
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut lab = Lab::with(
            "wire",
            &crate::lab::Topology {
                backends: 1,
                ..Default::default()
            },
        )?;
        lab.clear_interfaces();
        let netns = lab.lb().netns();
        let client = lab.client().netns().interface_index("eth0")?;
        let arms = [
            netns.interface_index("eth0")?,
            netns.interface_index("eth1")?,
        ];
        let mut generator = Generator::load()?;
        let mut balancer = netns.run(|| Balancer::load(arms[0]))?;
        // No redirect is allowed to an interface before its index is known here.
        netns.run(|| {
            generator.redirect_to(arms[1])?;
            balancer.send_out_of(arms[0])
        })?;
        let mut sink = |netns: &Netns| attach(netns, "eth0", generator.xdp("sink")?);
        let sinks = [
            sink(lab.client().netns())?,
            sink(lab.backends()[0].netns())?,
        ];
        Ok(Self {
            attached: None,
            _sinks: sinks,
            out: Out::Back,
            generator,
            balancer,
            client,
            arms,
            lab,
        })
    }

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// Opens connections of `clients` through the attached program.
    pub(super) fn establish(
        &mut self,
        of: fn(&Balancer) -> &Service,
        clients: IpAddr,
        count: u32,
    ) -> anyhow::Result<()> {
        self.attach(Subject::Balancer)?;
        self.generator.test_floor(SEND)?;
        let (generator, client) = (&mut self.generator, self.client);
        let netns = self.lab.client().netns();
        let mut send = |template: &Template, flows, packets| {
            netns.run(|| generator.run_live(template, flows, packets, client))?;
            Ok(())
        };
        self.balancer.establish(of, &mut send, clients, count, None)
    }

    /// Attaches the program of a case, and leads its packets to where they shall go.
    pub(super) fn take(&mut self, case: &Case) -> anyhow::Result<()> {
        self.attach(case.subject)?;
        if case.subject == Subject::Balancer && self.out != case.out {
            let out = match case.out {
                Out::Through => self.arms[1],
                Out::Back | Out::Nowhere => self.arms[0],
            };
            let balancer = &mut self.balancer;
            self.lab.lb().netns().run(|| balancer.send_out_of(out))?;
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
        self.lab.client().netns().run(|| {
            let first =
                generator.run_live(&case.template, Flows::Random(case.flows), SLICE, client)?;
            let mut times = vec![first];
            for _ in 1..slices {
                times.push(generator.resume_live(&case.template, SLICE, client)?);
            }
            Ok(times.iter().map(|t| t.as_secs_f64() * 1e9).collect())
        })
    }

    pub(super) fn counts(&self) -> anyhow::Result<Counts> {
        Ok(Counts {
            arrived: self.generator.arrived()?,
            balancer: self.balancer.counts()?,
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
