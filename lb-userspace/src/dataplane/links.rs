//! Attaches the program to interfaces, through links that outlive the daemon.

use aya::{
    pin::PinError,
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
        xdp::XdpLink,
    },
};
use tracing::{info, warn};

use super::{
    AttachMode, AttachedInterface, DataPlaneError, interface, pins::Pins, removal::remove_link,
};
use crate::config::{InterfaceSettings, WantedMode};

/// Why an interface did not take the program.
#[derive(Debug, thiserror::Error)]
enum AttachError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("the kernel gave no link that can be pinned")]
    NotPinnable(#[source] LinkError),
    #[error(transparent)]
    Pin(#[from] PinError),
}

/// The interfaces that the program is attached to.
#[derive(Debug, Default)]
pub(super) struct Links {
    attached: Vec<AttachedInterface>,
}

impl Links {
    pub(super) fn attached(&self) -> &[AttachedInterface] {
        &self.attached
    }

    /// Attaches to the wanted interfaces and detaches from all others.
    pub(super) fn attach(
        &mut self,
        program: &mut Xdp,
        pins: &Pins,
        wanted: &[InterfaceSettings],
    ) -> Result<(), DataPlaneError> {
        let indices: Vec<_> = wanted.iter().map(index).collect::<Result<_, _>>()?;
        self.attached.clear();
        for (interface, &ifindex) in wanted.iter().zip(&indices) {
            let attached = attach_one(program, pins, interface, ifindex)?;
            info!(
                interface = attached.name,
                mode = %attached.mode,
                note = attached.note,
                "attached"
            );
            self.attached.push(attached);
        }
        let links = pins
            .existing_links()
            .map_err(|error| DataPlaneError::new("list the pinned links", error))?;
        for (path, ifindex, _) in links {
            if !indices.contains(&ifindex) {
                remove_link(&path)
                    .map_err(|error| DataPlaneError::new("detach an interface", error))?;
                info!(ifindex, "detached: no longer in the configuration");
            }
        }
        Ok(())
    }
}

/// Whether every interface exists, to be asked before anything is changed.
///
/// # Errors
///
/// The first that does not.
pub fn check_interfaces(wanted: &[InterfaceSettings]) -> Result<(), DataPlaneError> {
    wanted
        .iter()
        .try_for_each(|interface| index(interface).map(drop))
}

pub(super) fn index(wanted: &InterfaceSettings) -> Result<u32, DataPlaneError> {
    interface::index(&wanted.name)
        .map_err(|error| DataPlaneError::new(format!("find interface {}", wanted.name), error))
}

/// Attaches to this interface; where an earlier life is attached in a wanted mode, its program is
/// replaced at one stroke, so that no packet misses both.
pub(super) fn attach_one(
    program: &mut Xdp,
    pins: &Pins,
    wanted: &InterfaceSettings,
    ifindex: u32,
) -> Result<AttachedInterface, DataPlaneError> {
    let attached = |mode, note| AttachedInterface {
        name: wanted.name.clone(),
        ifindex,
        mode,
        note,
    };
    if let Some((mode, note)) = adopt(program, pins, wanted, ifindex)? {
        return Ok(attached(mode, note));
    }
    let error = |error: AttachError| {
        let hint = match &error {
            AttachError::Program(ProgramError::SyscallError(error))
                if means_busy(&error.io_error) =>
            {
                " (another XDP program is attached there: see `ip link show`)"
            }
            _ => "",
        };
        DataPlaneError::new(format!("attach to interface {}{hint}", wanted.name), error)
    };
    let native = match wanted.mode {
        WantedMode::Auto | WantedMode::Native => {
            attach_new(program, pins, ifindex, AttachMode::Native)
        }
        WantedMode::Generic => {
            attach_new(program, pins, ifindex, AttachMode::Generic).map_err(error)?;
            return Ok(attached(AttachMode::Generic, AS_CONFIGURED.to_owned()));
        }
    };
    match native {
        Ok(()) => Ok(attached(AttachMode::Native, String::new())),
        Err(refusal) if wanted.mode == WantedMode::Auto && !is_busy(&refusal) => {
            let note = format!("the driver refused native mode: {}", chain(&refusal));
            warn!(interface = wanted.name, "{note}; trying generic mode");
            attach_new(program, pins, ifindex, AttachMode::Generic).map_err(error)?;
            Ok(attached(AttachMode::Generic, note))
        }
        Err(refusal) => Err(error(refusal)),
    }
}

/// Replaces the program of a pinned link, at one stroke. `None` where there is no usable link.
fn adopt(
    program: &mut Xdp,
    pins: &Pins,
    wanted: &InterfaceSettings,
    ifindex: u32,
) -> Result<Option<(AttachMode, String)>, DataPlaneError> {
    let action = || format!("take over the link of interface {}", wanted.name);
    let suits = |mode| match wanted.mode {
        WantedMode::Auto => true,
        WantedMode::Native => mode == AttachMode::Native,
        WantedMode::Generic => mode == AttachMode::Generic,
    };
    for mode in [AttachMode::Native, AttachMode::Generic] {
        let path = pins.link(ifindex, mode);
        if !path.exists() {
            continue;
        }
        let replaced = suits(mode)
            && PinnedLink::from_pin(&path)
                .map(FdLink::from)
                .map_err(AttachError::NotPinnable)
                .and_then(|link| XdpLink::try_from(link).map_err(AttachError::NotPinnable))
                .and_then(|link| Ok(program.attach_to_link(link)?))
                .inspect_err(|error| {
                    // The interface has been removed and made again under the same index.
                    warn!(interface = wanted.name, "link is dead: {}", chain(error));
                })
                .is_ok();
        if replaced {
            return Ok(Some((mode, note(wanted.mode, mode, pins.layout.detach))));
        }
        remove_link(&path).map_err(|error| DataPlaneError::new(action(), error))?;
    }
    Ok(None)
}

/// What there is to say of a link that an earlier life has left in this mode.
fn note(wanted: WantedMode, mode: AttachMode, detach: &str) -> String {
    match (wanted, mode) {
        (WantedMode::Generic, _) => AS_CONFIGURED.to_owned(),
        (WantedMode::Auto, AttachMode::Generic) => {
            format!("kept from before; `{detach}` and a new start try native mode again")
        }
        (WantedMode::Auto | WantedMode::Native, _) => String::new(),
    }
}

const AS_CONFIGURED: &str = "as configured";

fn attach_new(
    program: &mut Xdp,
    pins: &Pins,
    ifindex: u32,
    mode: AttachMode,
) -> Result<(), AttachError> {
    let flags = match mode {
        AttachMode::Native => XdpMode::Driver,
        AttachMode::Generic => XdpMode::Skb,
    };
    let id = program.attach_to_if_index(ifindex, flags)?;
    let link = program.take_link(id)?;
    // aya falls back to netlink where the kernel refuses a link; that attachment would end with
    // this process, and dropping it here ends it at once.
    let link = FdLink::try_from(link).map_err(AttachError::NotPinnable)?;
    link.pin(pins.link(ifindex, mode))?;
    Ok(())
}

fn is_busy(error: &AttachError) -> bool {
    matches!(error, AttachError::Program(ProgramError::SyscallError(error))
        if means_busy(&error.io_error))
}

/// The interface has another program: in the same mode (`EBUSY`), or in the other (`EEXIST`;
/// `dev_xdp_attach` in `net/core/dev.c`).
fn means_busy(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST))
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
