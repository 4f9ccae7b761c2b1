//! Nothing of a lab stays behind, however its process ends.

use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use lb_tests::lab::{Lab, output, remove_labs_on_signal, sweep, wait_until};

use super::{PATIENCE, PORT};

#[test]
fn a_lab_leaves_nothing_behind() {
    let lab = Lab::new("drop").unwrap();
    let name = lab.name().to_owned();
    let sleeper = lab.backends()[0].spawn("sleep", &["300"]).unwrap();
    let id = sleeper.id();
    // Whoever forgets a process does not keep the namespace alive.
    std::mem::forget(sleeper);
    // Two hosts at either side of the balancer, a switch between it and the backends, a directory.
    assert_eq!(traces(&name).len(), 6, "{:?}", traces(&name));
    drop(lab);
    assert_eq!(traces(&name), [""; 0]);
    wait_until(PATIENCE, "the forgotten process is dead", || {
        let status = fs::read_to_string(format!("/proc/{id}/stat"));
        status.map_or(true, |status| status.contains(") Z "))
    });
}

#[test]
fn a_panic_leaves_nothing_behind() {
    let mut name = String::new();
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::new("panic").unwrap();
        name = lab.name().to_owned();
        let _servers = lab.serve_identity(PORT).unwrap();
        assert!(traces(&name).is_empty(), "this test panics on purpose");
    }));
    assert!(panicked.is_err());
    assert_eq!(traces(&name), [""; 0]);
}

/// The body of [`a_signal_leaves_nothing_behind`]'s child process.
#[test]
#[ignore = "started by another test"]
fn hold_a_lab_until_a_signal_comes() {
    remove_labs_on_signal().unwrap();
    let lab = Lab::new("signal").unwrap();
    println!("name={}", lab.name());
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_signal_leaves_nothing_behind() {
    for (signal, number) in [("INT", 2), ("TERM", 15)] {
        let (mut child, name) = child_with_a_lab();
        output(Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]))
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
        assert_eq!(traces(&name), [""; 0]);
    }
}

#[test]
fn the_lab_of_a_killed_process_is_swept() {
    let (mut child, name) = child_with_a_lab();
    sweep();
    assert_eq!(traces(&name).len(), 6, "a living process loses nothing");
    child.kill().unwrap();
    child.wait().unwrap();
    sweep();
    assert_eq!(traces(&name), [""; 0]);
}

/// Runs this very program as another process that holds a lab.
fn child_with_a_lab() -> (std::process::Child, String) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "cleanup::hold_a_lab_until_a_signal_comes",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let name = lines
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("name=")?.1.to_owned()))
        .unwrap();
    (child, name)
}

/// Everything on this machine that bears the name of a lab.
fn traces(name: &str) -> Vec<String> {
    let temporary = env::temp_dir();
    [
        "/run/netns".as_ref(),
        "/sys/fs/bpf".as_ref(),
        temporary.as_path(),
    ]
    .into_iter()
    .flat_map(|directory: &Path| fs::read_dir(directory).into_iter().flatten())
    .map(|entry| entry.unwrap().path().display().to_string())
    .filter(|path| path.contains(name))
    .collect()
}
