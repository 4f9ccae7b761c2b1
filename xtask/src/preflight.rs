//! What this machine must have before a namespace is made. The first line says what is missing.

use std::{ffi::CString, fs, io, path::Path};

use anyhow::{Context as _, Result, bail};

/// The oldest kernel: compare-and-swap in BPF came with 5.12, and this is the first long-term
/// release after it.
const KERNEL: (u32, u32) = (5, 15);
const BPFFS: &str = "/sys/fs/bpf";

pub(crate) fn require_root(why: &str) -> Result<()> {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        bail!(
            "root is needed {why}: run it as root, for example `sudo -E env PATH=\"$PATH\" cargo xtask …`"
        );
    }
    Ok(())
}

/// Root, a kernel with what the programs need, and a mounted bpffs.
pub(crate) fn check() -> Result<()> {
    require_root("to load XDP programs and to make network namespaces")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's version")?;
    match version(&release) {
        Some(found) if found < KERNEL => bail!(
            "Linux {} is too old: {}.{} or newer is needed",
            release.trim(),
            KERNEL.0,
            KERNEL.1
        ),
        _ => {}
    }
    for (path, option) in [
        ("/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"),
        ("/proc/self/ns/net", "CONFIG_NET_NS"),
        (BPFFS, "CONFIG_BPF_SYSCALL"),
    ] {
        if !Path::new(path).exists() {
            bail!("this kernel has no {path}: use one built with {option}");
        }
    }
    mount_bpffs()?;
    check_veth()
}

fn mount_bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read the mounts")?;
    if is_mounted(&mounts) {
        return Ok(());
    }
    let (name, directory) = (CString::new("bpf")?, CString::new(BPFFS)?);
    // SAFETY: terminated strings; no data.
    let result = unsafe {
        libc::mount(
            name.as_ptr(),
            directory.as_ptr(),
            name.as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        bail!(
            "cannot mount the BPF file system on {BPFFS} ({error}): does this host or container allow it?"
        );
    }
    eprintln!("mounted the BPF file system on {BPFFS}");
    Ok(())
}

fn check_veth() -> Result<()> {
    let (one, other) = ("lb-veth-a", "lb-veth-b");
    let ip = |arguments: &[&str]| std::process::Command::new("ip").args(arguments).output();
    let made = ip(&["link", "add", one, "type", "veth", "peer", "name", other])
        .context("cannot run `ip` (package iproute2)")?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr);
        bail!(
            "this kernel makes no veth devices ({}): use one built with CONFIG_VETH",
            said.trim()
        );
    }
    let removed = ip(&["link", "delete", one])?;
    if !removed.status.success() {
        bail!("cannot remove the device {one} again");
    }
    Ok(())
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

/// Major and minor of a kernel release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(['.', '-', '+']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_read() {
        assert_eq!(version("6.18.44-generic\n"), Some((6, 18)));
        assert_eq!(version("5.15-rc1"), Some((5, 15)));
        assert_eq!(version("five"), None);
        assert!(version("5.4.0").unwrap() < KERNEL);
    }

    #[test]
    fn a_mounted_bpffs_is_seen() {
        assert!(is_mounted(
            "none / ext4 rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n"
        ));
        assert!(!is_mounted("sysfs /sys sysfs rw 0 0\n"));
    }
}
