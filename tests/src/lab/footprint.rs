//! What a lab leaves on the machine, and how all of it is found again and removed.
//!
//! Every namespace, directory and pin of a lab has a name that begins with
//! `lb-test-<process id>-<number>-`. So one function removes the traces of a lab that ends, of
//! this process when it is interrupted, and of processes that died without a chance to.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::{
        Once, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    netns::{NETNS_DIRECTORY, Netns},
    process::output,
    sys, wait_for,
};

const PREFIX: &str = "lb-test-";
pub(super) const BPFFS: &str = "/sys/fs/bpf";

/// Held for reading while something that must be removed comes into being, and for writing by
/// [`remove_own`], which never gives it back.
static MAKING: RwLock<()> = RwLock::new(());

/// To be held while something of a lab is made: a process, a namespace, a directory.
///
/// Once the labs of this process are being removed, the caller waits here for the end of the
/// process, so that nothing comes into being behind the remover's back.
pub(super) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a lab, and the owner of all that is named after it: dropping it removes that.
pub(super) struct Footprint {
    owner: Owner,
    name: String,
    directory: PathBuf,
}

impl Footprint {
    /// A new, unique name, with a directory for temporary files.
    ///
    /// `hint` is for people who look at `ip netns`; only letters, digits and hyphens are kept.
    pub(super) fn new(hint: &str) -> Result<Self> {
        static FIRST: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(1);
        // Nothing is ours before the first lab: what bears our id is of an earlier process.
        FIRST.call_once(|| remove_where(|owner| owner.is_dead() || owner.is_this_process()));

        let owner = Owner {
            process: process::id(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        };
        let name = format!("{owner}-{}", shortened(hint));
        let _making = making();
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self {
            owner,
            name,
            directory,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For temporary files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Footprint {
    fn drop(&mut self) {
        // Whoever loses the race against a signal ends with it, instead of with an error of its
        // own about what has been taken away from it.
        let _making = making();
        remove_where(|owner| *owner == self.owner);
    }
}

/// Removes what processes that live no more have left behind.
///
/// The first lab of a process does this by itself.
pub fn sweep() {
    remove_where(Owner::is_dead);
}

/// Removes every lab of this process, at a time when it can no longer drop them; no other thread
/// makes anything from then on, and the caller must end the process.
pub(super) fn remove_own() {
    // Forgotten: it is never given back.
    std::mem::forget(MAKING.write().unwrap_or_else(PoisonError::into_inner));
    remove_where(Owner::is_this_process);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    process: u32,
    /// Counts the labs of the process.
    number: u32,
}

impl Owner {
    fn of(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
        Some(Self {
            process: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        })
    }

    fn is_dead(&self) -> bool {
        !Path::new("/proc").join(self.process.to_string()).exists()
    }

    fn is_this_process(&self) -> bool {
        self.process == process::id()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}-{}", self.process, self.number)
    }
}

/// Ends processes first, then takes away pins (and with them programs), namespaces and files.
///
/// Goes on after a failure, and reports it: another process may be sweeping at the same time.
fn remove_where(doomed: impl Fn(&Owner) -> bool) {
    let namespaces = entries(Path::new(NETNS_DIRECTORY), &doomed);
    for namespace in &namespaces {
        report(kill_processes(&file_name(namespace)), namespace);
    }
    for pins in entries(Path::new(BPFFS), &doomed) {
        report(remove_directory(&pins), &pins);
    }
    for namespace in &namespaces {
        let mut command = Command::new("ip");
        let removed = output(command.args(["netns", "delete", &file_name(namespace)]));
        report(removed.map(drop), namespace);
    }
    for directory in entries(&std::env::temp_dir(), &doomed) {
        report(remove_directory(&directory), &directory);
    }
}

fn entries(directory: &Path, doomed: impl Fn(&Owner) -> bool) -> Vec<PathBuf> {
    // A directory that is not there, such as that of `ip netns` before its first use, is empty.
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| Owner::of(&file_name(path)).is_some_and(|owner| doomed(&owner)))
        .collect()
}

/// Returns when they are gone, because a process may pin and create until its very end.
fn kill_processes(namespace: &str) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let killed = wait_for(PATIENCE, "all processes have ended", || {
        match kill_once(namespace) {
            Ok(0) => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    killed.unwrap_or_else(|timed_out| Err(timed_out.into()))
}

/// How many processes there were to kill.
fn kill_once(namespace: &str) -> Result<usize> {
    let processes = Netns::processes(namespace)?;
    for &pid in &processes {
        match sys::kill(pid, libc::SIGKILL) {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                return Err(error).with_context(|| format!("cannot kill process {pid}"));
            }
            _ => {}
        }
    }
    Ok(processes.len())
}

fn remove_directory(path: &Path) -> Result<()> {
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn report(result: Result<()>, path: &Path) {
    match result {
        Err(error) if path.exists() => eprintln!("{error:#}"),
        _ => {}
    }
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

/// Socket paths below the lab's directory have room for 108 bytes in all.
fn shortened(hint: &str) -> String {
    hint.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(24)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_read_from_the_names_it_gave() {
        let owner = Owner {
            process: 4711,
            number: 12,
        };
        assert_eq!(Owner::of(&format!("{owner}-web-lb")), Some(owner));
        for foreign in ["lb-test", "lb-test-x-1-a", "lb-test-1", "lb", "default"] {
            assert_eq!(Owner::of(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_a_dead_process_left_is_swept() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = Owner {
            process: child.id(),
            number: 1,
        };
        let mine = Owner {
            process: process::id(),
            number: u32::MAX,
        };
        let directory = |owner: Owner| std::env::temp_dir().join(format!("{owner}-swept"));
        fs::create_dir(directory(dead)).unwrap();
        fs::create_dir(directory(mine)).unwrap();
        sweep();
        assert!(!directory(dead).exists());
        assert!(directory(mine).exists(), "a living process loses nothing");
        fs::remove_dir(directory(mine)).unwrap();
    }
}
