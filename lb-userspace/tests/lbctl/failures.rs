//! What goes wrong: exit codes, what is said, where.

use std::{path::Path, process::Stdio};

use tokio::{net::UnixListener, process::Command, time::timeout};

use crate::fake::{DEADLINE, Daemon, lbctl, stderr};

/// The exit code and what was said on stderr.
async fn lbctl_on(socket: &Path, args: &[&str]) -> (i32, String) {
    let output = lbctl(&[&["--socket", socket.to_str().unwrap()], args].concat()).await;
    (output.status.code().unwrap(), stderr(&output).to_owned())
}

#[tokio::test]
async fn an_unknown_name_fails_with_a_suggestion() {
    let daemon = Daemon::start().await;
    assert_eq!(
        daemon.failure(&["service", "show", "wbe"]).await,
        (
            1,
            "lbctl: no service is called \"wbe\"\nhint: did you mean \"web\"?\n".to_owned()
        )
    );
    assert_eq!(
        daemon
            .failure(&[
                "conntrack",
                "list",
                "--service",
                "mail",
                "--backend",
                "mail-2"
            ])
            .await,
        (
            1,
            "lbctl: no backend of service mail is called \"mail-2\"\n\
             hint: did you mean \"mail-1\"?\n"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn an_unreachable_daemon_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lbd.sock");
    let (code, text) = lbctl_on(&socket, &["status"]).await;
    assert_eq!(code, 3);
    assert!(text.contains(socket.to_str().unwrap()), "{text}");
    assert!(text.contains("there is no such socket"), "{text}");

    // A killed daemon leaves its file.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let (code, text) = lbctl_on(&socket, &["status"]).await;
    assert_eq!(code, 3);
    assert!(text.contains("nobody listens there"), "{text}");

    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let hang_up = tokio::spawn(async move { drop(listener.accept().await) });
    let (code, text) = lbctl_on(&socket, &["status"]).await;
    assert_eq!(code, 3);
    assert!(text.contains("broke off"), "{text}");
    hang_up.await.unwrap();
}

#[tokio::test]
async fn usage_errors_and_help_have_their_codes() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("lbd.sock");
    for args in [
        &["frobnicate"][..],
        &["backend", "add", "web"],
        &["backend", "set", "web", "web-1", "--weight", "many"],
    ] {
        assert_eq!(lbctl_on(&socket, args).await.0, 2, "{args:?}");
    }
    for args in [&["--help"][..], &["backend", "--help"], &["--version"]] {
        assert_eq!(lbctl_on(&socket, args).await.0, 0, "{args:?}");
    }
}

#[tokio::test]
async fn output_into_a_closed_pipe_is_no_error() {
    let daemon = Daemon::start().await;
    for args in [
        &["conntrack", "list", "-o", "json"][..],
        &["service", "list"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = Command::new(env!("CARGO_BIN_EXE_lbctl"))
            .arg("--socket")
            .arg(daemon.path("lbd.sock"))
            .args(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = timeout(DEADLINE, child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
        assert_eq!(
            (output.status.code(), stderr(&output)),
            (Some(0), ""),
            "{args:?}"
        );
    }
}
