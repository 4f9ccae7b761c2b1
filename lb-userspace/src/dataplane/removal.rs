//! Takes a data plane down.

use std::{fs, io, path::Path};

use super::{
    PinsError, interface,
    pins::{BALANCER, Pins},
    sys,
};

/// What [`detach`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Detached {
    /// Interfaces (by name, or `#<index>` where there is no such interface any more).
    pub interfaces: Vec<String>,
    pub maps: usize,
}

/// Takes a data plane down: links first, so that packets pass to the host at once, then maps.
///
/// # Errors
///
/// [`PinsError::Held`] while a daemon runs on these pins: ask it instead.
pub fn detach(root: &Path) -> Result<Detached, PinsError> {
    if !root.exists() {
        return Ok(Detached::default());
    }
    Pins::lock(root, &BALANCER)?.remove()
}

impl Pins {
    /// Removes everything and gives up the lock.
    pub(super) fn remove(self) -> Result<Detached, PinsError> {
        let mut detached = Detached::default();
        for (path, ifindex, _) in self.existing_links()? {
            remove_link(&path)?;
            detached
                .interfaces
                .push(interface::name(ifindex).unwrap_or_else(|| format!("#{ifindex}")));
        }
        detached.interfaces.sort_unstable();
        detached.maps = fs::read_dir(self.maps()).map_or(0, |maps| maps.count());
        // Pins of other layouts, which an upgrade has left behind, go too.
        for layout in self.layouts()? {
            fs::remove_dir_all(&layout).map_err(|source| PinsError::Remove {
                path: layout,
                source,
            })?;
        }
        match fs::remove_dir(self.root()) {
            // Other things stand there, or it is where the file system is mounted.
            Err(error) if !is_in_use(&error) => Err(PinsError::Remove {
                path: self.root().to_owned(),
                source: error,
            }),
            _ => Ok(detached),
        }
    }
}

/// Removes the pin of a link; when this returns, its program is off the interface.
pub(super) fn remove_link(path: &Path) -> Result<(), PinsError> {
    sys::detach_pinned_link(path)
        .and_then(|()| fs::remove_file(path))
        .map_err(|source| PinsError::Remove {
            path: path.to_owned(),
            source,
        })
}

fn is_in_use(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::ResourceBusy
    )
}
