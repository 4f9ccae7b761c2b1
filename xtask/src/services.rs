//! Keeping the servers that the demo installs from serving on this host.
//!
//! Debian's packages start what they install and enable it at boot. The demo wants the programs of
//! nginx and HAProxy, in its own network namespaces, and nothing on this host's port 80.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, Result};

use crate::shell::{quietly, succeeds};

/// Asked by `invoke-rc.d` and `deb-systemd-invoke` before they start a service; exit status 101
/// forbids it. An environment variable that does the same does not exist.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While this lives, Debian's packages start no service.
pub(crate) struct NoServices {
    /// `None` where this host has a policy of its own, which is left alone.
    written: Option<PathBuf>,
}

impl NoServices {
    pub(crate) fn here() -> Result<Self> {
        Self::at(Path::new(POLICY))
    }

    fn at(path: &Path) -> Result<Self> {
        if is_void(path) {
            fs::remove_file(path)
                .with_context(|| format!("cannot remove the void {}", path.display()))?;
        }
        let created = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(path);
        match created {
            Ok(mut file) => {
                let written = Self {
                    written: Some(path.to_owned()),
                };
                file.write_all(policy(process::id()).as_bytes())
                    // The mode above is subject to the umask.
                    .and_then(|()| file.set_permissions(fs::Permissions::from_mode(0o755)))
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(written)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Ok(Self { written: None })
            }
            Err(error) => Err(error).with_context(|| format!("cannot create {}", path.display())),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(path) = &self.written {
            // If it stays, it is void as soon as this process has ended.
            let _ = fs::remove_file(path);
        }
    }
}

/// A policy that holds only while process `id` lives: a killed set-up must not keep this host's
/// services from starting for ever.
fn policy(id: u32) -> String {
    format!(
        "#!/bin/sh\n\
         # Written by `cargo xtask setup`: what it installs is not to start services here.\n\
         # Void once that process has ended, and then removes itself.\n\
         if [ \"$(cat /proc/{id}/comm 2>/dev/null)\" = xtask ]; then exit 101; fi\n\
         rm -f -- \"$0\"\n\
         exit 0\n"
    )
}

/// Whether a killed set-up has left its policy.
fn is_void(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| {
        let id = text
            .split_once("/proc/")
            .and_then(|(_, rest)| rest.split_once("/comm"))
            .and_then(|(id, _)| id.parse().ok());
        id.is_some_and(|id| text == policy(id) && !Path::new(&format!("/proc/{id}")).exists())
    })
}

/// Takes services out of this host's boot that an installation has just put there, and stops them
/// where the host's own policy let them start.
pub(crate) fn disable(services: &[&str]) -> Result<()> {
    for service in services {
        if Path::new("/run/systemd/system").exists() {
            quietly(systemctl(&["disable", "--now", service]))?;
        } else if succeeds(&mut systemctl(&["--version"])) {
            quietly(systemctl(&["disable", service]))?;
        } else if succeeds(Command::new("update-rc.d").args([service, "disable"])) {
            eprintln!("   {service} is not started at boot");
        }
    }
    Ok(())
}

fn systemctl(arguments: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-{name}-{}", process::id()))
    }

    #[test]
    fn the_policy_goes_with_its_guard_and_spares_the_hosts_own() {
        let path = scratch("policy");
        let guard = NoServices::at(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o755
        );
        let second = NoServices::at(&path).unwrap();
        drop(second);
        assert!(path.exists(), "only its own guard removes it");
        drop(guard);
        assert!(!path.exists());
    }

    #[test]
    fn the_policy_of_a_killed_set_up_permits_and_removes_itself() {
        let path = scratch("void-policy");
        // No process has this number: it is above the kernel's limit.
        fs::write(&path, policy(u32::MAX)).unwrap();
        assert!(is_void(&path));
        assert!(succeeds(Command::new("sh").arg(&path)));
        assert!(!path.exists());
    }

    #[test]
    fn the_policy_of_a_living_set_up_forbids() {
        let path = scratch("policy-in-force");
        // Only the name of the process tells it from one that got its number later.
        let name = fs::read_to_string("/proc/self/comm").unwrap();
        let script = policy(process::id()).replace("= xtask ]", &format!("= {} ]", name.trim()));
        fs::write(&path, script).unwrap();
        let status = Command::new("sh").arg(&path).status().unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(status.code(), Some(101));
    }
}
