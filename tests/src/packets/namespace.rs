//! Network namespaces for tests whose packets need interfaces, routes and neighbours.

use std::{fs, io, panic, process::Command, thread};

/// Runs `test` in a network namespace that ends with it: nobody holds it but the test's thread.
///
/// # Panics
///
/// If the namespace cannot be made, and with whatever `test` panics with.
pub fn in_new_namespace(test: impl FnOnce() + Send) {
    let run = || {
        // SAFETY: gives this thread, and no other, a new network namespace.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            panic!("no network namespace: {}", io::Error::last_os_error());
        }
        test();
    };
    if let Err(reason) = thread::scope(|scope| scope.spawn(run).join()) {
        panic::resume_unwind(reason);
    }
}

/// Runs `ip` in this thread's namespace, for example `ip("link set lo up")`.
///
/// # Panics
///
/// If it fails.
pub fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("ip {arguments}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {complaint}");
}

/// Writes a setting below `/proc/sys/net` in this thread's namespace.
///
/// # Panics
///
/// If it cannot be written.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
}
