//! What this machine must have before a namespace is made. The first line says what is missing.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use lb_toolchain::find_program;

/// The oldest kernel: compare-and-swap in BPF came with 5.12, and this is the first long-term
/// release after it.
const KERNEL: (u32, u32) = (5, 15);
const BPFFS: &str = "/sys/fs/bpf";

pub(crate) fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Complains unless this is root, with the command that would be.
pub(crate) fn require_root(why: &str) -> Result<()> {
    if !is_root() {
        let arguments: Vec<_> = env::args().skip(1).collect();
        bail!(
            "root is needed {why}: {}",
            as_root(&arguments, find_program("sudo").is_some())
        );
    }
    Ok(())
}

/// How to run this command as root. `sudo` has a `PATH` of its own, without the user's cargo.
fn as_root(arguments: &[String], has_sudo: bool) -> String {
    let command = format!("cargo xtask {}", arguments.join(" "));
    if has_sudo {
        format!("run `sudo -E env \"PATH=$PATH\" {command}`")
    } else {
        format!("run `{command}` as root")
    }
}

/// Complains unless this is root, on a kernel with what the programs and the lab need. Mounts bpffs
/// where it is not.
///
/// What needs `ip` is left to [`check_veth`], because set-up may have to install it first.
pub(crate) fn check() -> Result<()> {
    require_root("to load XDP programs and to make network namespaces")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")
        .context("cannot read the kernel's version")?;
    if let Some(found) = version(&release)
        && found < KERNEL
    {
        bail!(
            "Linux {} is too old: boot {}.{} or newer",
            release.trim(),
            KERNEL.0,
            KERNEL.1
        );
    }
    for (path, option) in [
        ("/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"),
        ("/proc/self/ns/net", "CONFIG_NET_NS"),
        (BPFFS, "CONFIG_BPF_SYSCALL"),
    ] {
        if !Path::new(path).exists() {
            bail!("this kernel has no {path}: boot one built with {option}");
        }
    }
    check_bpf()?;
    mount_bpffs()?;
    if find_program("ip").is_some() {
        check_veth()?;
    }
    Ok(())
}

/// Whether this process may load BPF at all: a container's root may not.
fn check_bpf() -> Result<()> {
    const MAP_CREATE: libc::c_long = 0;
    /// The first fields of `union bpf_attr` for `BPF_MAP_CREATE`.
    #[repr(C)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    const ARRAY: u32 = 2;
    let attributes = Attributes {
        map_type: ARRAY,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
    };
    // SAFETY: the kernel reads as many bytes as it is told, which is the size of the struct, and
    // takes the fields behind them for zero.
    let map = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            MAP_CREATE,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    if map < 0 {
        let error = io::Error::last_os_error();
        bail!(
            "the kernel refuses to make a BPF map ({error}): {}",
            mend(&error)
        );
    }
    // SAFETY: the file descriptor was just made, and nothing else knows of it.
    unsafe { libc::close(map as libc::c_int) };
    Ok(())
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
            "cannot mount the BPF file system on {BPFFS} ({error}): {}",
            mend(&error)
        );
    }
    eprintln!("mounted the BPF file system on {BPFFS}");
    Ok(())
}

/// Makes a pair of veth devices in a network namespace of its own, which goes with the process
/// that made it.
pub(crate) fn check_veth() -> Result<()> {
    let mut command = Command::new(find_program("ip").context("`ip` is missing")?);
    command
        .args("link add name lb0 type veth peer name lb1".split(' '))
        .stdin(Stdio::null());
    // SAFETY: between fork and exec, one system call and nothing that allocates.
    unsafe {
        command.pre_exec(|| match libc::unshare(libc::CLONE_NEWNET) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let made = command.output().map_err(|error| {
        anyhow::anyhow!(
            "cannot make a network namespace ({error}): {}",
            mend(&error)
        )
    })?;
    if !made.status.success() {
        bail!(
            "this kernel makes no veth devices ({}): boot one built with CONFIG_VETH, or load the \
             module veth",
            String::from_utf8_lossy(&made.stderr).trim()
        );
    }
    Ok(())
}

fn mend(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "run it outside of the container, or give the container CAP_SYS_ADMIN, CAP_NET_ADMIN \
             and CAP_BPF"
        }
        _ => "boot a kernel built with CONFIG_BPF_SYSCALL and CONFIG_NET_NS",
    }
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

    #[test]
    fn the_way_to_root_is_the_same_command() {
        let arguments = ["test", "--host"].map(str::to_owned);
        assert_eq!(
            as_root(&arguments, true),
            "run `sudo -E env \"PATH=$PATH\" cargo xtask test --host`"
        );
        assert_eq!(
            as_root(&arguments, false),
            "run `cargo xtask test --host` as root"
        );
    }
}
