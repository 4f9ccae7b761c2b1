use std::{error::Error, io, path::PathBuf};

use super::client::ClientError;
use crate::{
    api::{ErrorCode, with_causes},
    config::ConfigError,
    dataplane::{PinsError, decap::DecapError},
    netlink::NetlinkError,
};

/// Why `lbctl` did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Pins(#[from] PinsError),
    #[error(transparent)]
    Decap(#[from] DecapError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("cannot find out the absolute path of {}", .path.display())]
    Path {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the output")]
    Output(#[from] io::Error),
    #[error("cannot start")]
    Runtime(#[source] io::Error),
}

impl CliError {
    /// Whoever read the output has seen enough: `lbctl … | head`.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Client(ClientError::Refused(info)) => match info.code {
                ErrorCode::InvalidConfig => 4,
                _ => 1,
            },
            Self::Client(
                ClientError::Connect { .. }
                | ClientError::Timeout { .. }
                | ClientError::BrokenOff { .. },
            ) => 3,
            Self::Config(_) => 4,
            _ => 1,
        }
    }

    /// What went wrong and, below it, what to do.
    pub(super) fn report(&self) -> String {
        let mut text = with_causes(self);
        if let Some(hint) = self.hint() {
            text.push_str("\nhint: ");
            text.push_str(&hint);
        }
        text
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Client(ClientError::Refused(info)) => info.hint.clone(),
            Self::Client(ClientError::Connect { source, .. }) => Some(unreachable(source.kind())),
            Self::Client(ClientError::Timeout { .. }) => {
                Some("it may hang, or be stopped: look at its log".to_owned())
            }
            Self::Client(ClientError::BrokenOff { .. }) => {
                Some("it may have ended in the meantime: look at its log".to_owned())
            }
            Self::Client(ClientError::Unreadable { .. }) => {
                Some("lbctl and lbd may be of different versions".to_owned())
            }
            Self::Pins(PinsError::Held { .. }) => {
                Some("ask that daemon: name its socket with --socket".to_owned())
            }
            Self::Decap(DecapError::Pins(PinsError::Held { .. })) => {
                Some("try again when it has ended".to_owned())
            }
            Self::Decap(error) if is_not_permitted(error) => {
                Some("run lbctl decap as root".to_owned())
            }
            _ => None,
        }
    }
}

/// Whether the kernel has refused something to who we are.
fn is_not_permitted(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn unreachable(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => {
            "there is no such socket: start lbd, or name its socket with --socket"
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens there: lbd has ended without tidying up; start it again"
        }
        io::ErrorKind::PermissionDenied => {
            "run lbctl as root, or as a member of the socket's group"
        }
        _ => "name lbd's socket with --socket",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorInfo;

    #[test]
    fn who_may_not_open_the_socket_is_told_what_to_do() {
        let error = CliError::from(ClientError::Connect {
            socket: "/run/lb/lbd.sock".into(),
            source: io::ErrorKind::PermissionDenied.into(),
        });
        assert_eq!(error.exit_code(), 3);
        assert_eq!(
            error.report(),
            "cannot reach lbd on /run/lb/lbd.sock: permission denied\n\
             hint: run lbctl as root, or as a member of the socket's group"
        );
    }

    #[test]
    fn a_refusal_keeps_the_daemon_s_words() {
        let refused = |code| {
            CliError::from(ClientError::Refused(ErrorInfo {
                error: "no".to_owned(),
                code,
                hint: Some("try yes".to_owned()),
            }))
        };
        assert_eq!(refused(ErrorCode::Conflict).report(), "no\nhint: try yes");
        assert_eq!(refused(ErrorCode::Conflict).exit_code(), 1);
        assert_eq!(refused(ErrorCode::InvalidConfig).exit_code(), 4);
    }

    #[test]
    fn a_code_of_a_newer_daemon_is_a_failure() {
        let info: ErrorInfo =
            serde_json::from_str(r#"{"error": "no", "code": "not_yet_invented"}"#).unwrap();
        assert_eq!(info.code, ErrorCode::Failed);
    }
}
