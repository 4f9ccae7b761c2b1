//! Two legs of one probe, to the backend's own address and by the service's way, and what they say
//! together (S-DSR-3).

use std::{fmt, future::Future, net::SocketAddr, pin::pin, time::Duration};

use tokio::time::timeout;

use super::{
    path::{PathError, Way},
    probe::{Outcome, ProbeError},
};

/// What the legs lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    /// Of the direct leg.
    pub(super) backend: SocketAddr,
    pub(super) way: Way,
}

/// Which leg of a probe failed, and why.
#[derive(Debug)]
pub(super) enum LegsError {
    Path {
        ends: Ends,
        failure: PathError,
    },
    Direct {
        ends: Ends,
        failure: Box<ProbeError>,
    },
    Both {
        ends: Ends,
        path: PathError,
        direct: Box<ProbeError>,
    },
}

impl Ends {
    /// The path decides. The direct leg is asked once the path has failed, or been silent for
    /// `patience`, and only to say which of them is at fault. No future is waited for longer than
    /// it takes.
    pub(super) async fn path_decides(
        self,
        path: impl Future<Output = Result<(), PathError>>,
        direct: impl Future<Output = Outcome>,
        patience: Duration,
    ) -> Outcome {
        let (mut path, mut direct_leg) = (pin!(path), pin!(direct));
        let (path, direct) = match timeout(patience, &mut path).await {
            Ok(answer) => (answer, None),
            Err(_) => tokio::select! {
                answer = &mut path => (answer, None),
                answer = &mut direct_leg => (path.await, Some(answer)),
            },
        };
        match (path, direct) {
            (Ok(()), _) => Ok(format!("{} answers", self.way)),
            (Err(failure), Some(direct)) => Err(self.path_failed(failure, direct).into()),
            (Err(failure), None) => Err(self.path_failed(failure, direct_leg.await).into()),
        }
    }

    /// Both are asked at once, and have to succeed.
    pub(super) async fn both_decide(
        self,
        path: impl Future<Output = Result<(), PathError>>,
        direct: impl Future<Output = Outcome>,
    ) -> Outcome {
        match tokio::join!(path, direct) {
            (Ok(()), Ok(seen)) => Ok(format!("{seen}; {} answers", self.way)),
            (Ok(()), Err(failure)) => Err(LegsError::Direct {
                ends: self,
                failure: failure.into(),
            }
            .into()),
            (Err(failure), direct) => Err(self.path_failed(failure, direct).into()),
        }
    }

    fn path_failed(self, path: PathError, direct: Outcome) -> LegsError {
        match direct {
            Ok(_) => LegsError::Path {
                ends: self,
                failure: path,
            },
            Err(direct) => LegsError::Both {
                ends: self,
                path,
                direct: direct.into(),
            },
        }
    }
}

impl LegsError {
    /// Whether what failed is for want of something on this host, so that nothing is known of the
    /// backend.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Self::Path { failure: path, .. } | Self::Both { path, .. } => {
                matches!(path, PathError::Local(_))
            }
            Self::Direct { failure, .. } => failure.is_local(),
        }
    }
}

impl fmt::Display for LegsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path {
                ends: Ends { backend, way },
                failure,
            } => {
                write!(f, "{backend} answers, but {way} ")?;
                match failure {
                    PathError::NoAnswer(_) => write!(f, "does not: {}", way.usual_causes()),
                    PathError::Refused => {
                        let address = way.service.ip();
                        write!(f, "refuses: does its server listen on {address}?")
                    }
                    other => write!(f, "cannot be asked: {other}"),
                }
            }
            Self::Direct {
                ends: Ends { backend, way },
                failure,
            } => write!(f, "{way} answers, but {backend} fails: {failure}"),
            Self::Both {
                ends: Ends { backend, way },
                path,
                direct,
            } => write!(f, "{backend} fails ({direct}), and so does {way} ({path})"),
        }
    }
}

impl std::error::Error for LegsError {}

#[cfg(test)]
mod tests {
    use std::{
        future::{pending, ready},
        io,
        sync::atomic::{AtomicBool, Ordering},
    };

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{
        health::{
            probe::Probe,
            testing::{DEADLINE, Server, failed, http, listener, ok, refusing},
        },
        model::{Check, CheckKind, Tunnel, Unresolved},
        wire::Encapsulation,
    };

    const MS: Duration = Duration::from_millis(1);

    fn ends(backend: SocketAddr, encapsulation: Option<Encapsulation>) -> Ends {
        let way = Way {
            service: ([192, 0, 2, 10], 80).into(),
            tunnel: encapsulation.map(|kind| (kind, Tunnel::default())),
        };
        Ends { backend, way }
    }

    /// Of this address alone.
    async fn direct(backend: SocketAddr, kind: CheckKind) -> Outcome {
        let check = Check {
            kind,
            timeout: DEADLINE,
            ..Check::default()
        };
        Probe::new(backend, &check, None).unwrap().run().await
    }

    fn words(outcome: Outcome) -> Result<String, String> {
        outcome.map_err(|error| error.to_string())
    }

    /// S-DSR-3: what is said when the path fails as given, and the direct leg is as it is.
    async fn tcp(
        backend: SocketAddr,
        tunnel: Option<Encapsulation>,
        path: PathError,
    ) -> Result<String, String> {
        let ends = ends(backend, tunnel);
        let direct = direct(backend, CheckKind::Tcp);
        words(ends.path_decides(ready(Err(path)), direct, DEADLINE).await)
    }

    /// S-DSR-3.
    #[tokio::test]
    async fn a_path_that_fails_alone_is_told_from_a_backend_that_does() {
        let (_listener, address) = listener().await;
        let (ipip, gue) = (Some(Encapsulation::Ipip), Some(Encapsulation::Gue));
        let silent = || PathError::NoAnswer(MS);
        assert_eq!(
            tcp(address, None, silent()).await,
            failed(&format!(
                "{address} answers, but 192.0.2.10:80 through dsr does not: is 192.0.2.10 on the \
                 backend's lo?"
            ))
        );
        for (tunnel, name) in [(ipip, "ipip"), (gue, "gue")] {
            assert_eq!(
                tcp(address, tunnel, silent()).await,
                failed(&format!(
                    "{address} answers, but 192.0.2.10:80 through {name} does not: is 192.0.2.10 \
                     on the backend's lo, does it decapsulate, does rp_filter drop?"
                ))
            );
        }
        assert_eq!(
            tcp(address, ipip, PathError::Refused).await,
            failed(&format!(
                "{address} answers, but 192.0.2.10:80 through ipip refuses: does its server \
                 listen on 192.0.2.10?"
            ))
        );
        let unresolved = Unresolved::NoRoute(address.ip());
        assert_eq!(
            tcp(address, ipip, unresolved.into()).await,
            failed(&format!(
                "{address} answers, but 192.0.2.10:80 through ipip cannot be asked: no next hop: \
                 no route to 127.0.0.1"
            ))
        );

        let (_socket, refusing) = refusing();
        assert_eq!(
            tcp(refusing, gue, silent()).await,
            failed(&format!(
                "{refusing} fails (connection refused), and so does 192.0.2.10:80 through gue (no \
                 answer within 1ms)"
            ))
        );
    }

    /// S-DSR-3: the direct leg costs nothing while the path answers, and does not matter then.
    #[tokio::test(start_paused = true)]
    async fn the_direct_leg_is_asked_only_if_the_path_fails_or_is_slow() {
        let ends = ends(([10, 2, 0, 11], 80).into(), None);
        let asked = AtomicBool::new(false);
        for (path_takes, direct_asked) in [(40 * MS, false), (60 * MS, true)] {
            asked.store(false, Ordering::Relaxed);
            let path = async {
                sleep(path_takes).await;
                Ok(())
            };
            let direct = async {
                asked.store(true, Ordering::Relaxed);
                Err(ProbeError::NoAnswer(MS))
            };
            let outcome = ends.path_decides(path, direct, 50 * MS).await;
            assert_eq!(words(outcome), ok("192.0.2.10:80 through dsr answers"));
            assert_eq!(asked.load(Ordering::Relaxed), direct_asked);
        }
        // An answer in time ends the waiting for the other leg.
        let path = async {
            sleep(60 * MS).await;
            Ok(())
        };
        assert!(ends.path_decides(path, pending(), 50 * MS).await.is_ok());
        // Both together take no longer than twice the patience.
        let start = Instant::now();
        let path = async {
            sleep(100 * MS).await;
            Err(PathError::NoAnswer(100 * MS))
        };
        let direct = async {
            sleep(50 * MS).await;
            Err(ProbeError::NoAnswer(50 * MS))
        };
        let outcome = words(ends.path_decides(path, direct, 50 * MS).await);
        let expected = "10.2.0.11:80 fails (no answer within 50ms), and so does 192.0.2.10:80 \
                        through dsr (no answer within 100ms)";
        assert_eq!((outcome, start.elapsed()), (failed(expected), 100 * MS));
    }

    /// S-DSR-3.
    #[tokio::test]
    async fn http_has_to_succeed_and_so_has_the_path() {
        let fine = Server::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let sorry = Server::answering("HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n").await;
        let check = async |server: &Server, path: Result<(), PathError>| {
            let ends = ends(server.address, Some(Encapsulation::Gue));
            let direct = direct(server.address, http("/"));
            words(ends.both_decide(ready(path), direct).await)
        };
        let silent = || Err(PathError::NoAnswer(MS));
        let (well, ill) = (fine.address, sorry.address);
        assert_eq!(
            check(&fine, Ok(())).await,
            ok("HTTP 200 from GET /; 192.0.2.10:80 through gue answers")
        );
        let path_fails = check(&fine, silent()).await.unwrap_err();
        let expected = format!("{well} answers, but 192.0.2.10:80 through gue does not: is");
        assert!(path_fails.starts_with(&expected), "{path_fails}");
        assert_eq!(
            check(&sorry, Ok(())).await,
            failed(&format!(
                "192.0.2.10:80 through gue answers, but {ill} fails: HTTP 503 from GET /"
            ))
        );
        assert_eq!(
            check(&sorry, silent()).await,
            failed(&format!(
                "{ill} fails (HTTP 503 from GET /), and so does 192.0.2.10:80 through gue (no \
                 answer within 1ms)"
            ))
        );
    }

    /// What this host lacks says nothing of the backend; a path that has failed does, whatever is
    /// lacking for the other leg.
    #[tokio::test]
    async fn a_lack_of_resources_is_told_from_a_failure() {
        let ends = ends(([10, 2, 0, 11], 80).into(), None);
        let lacking = || io::Error::from_raw_os_error(libc::EMFILE);
        let (no_path, no_direct) = (
            || ready(Err(PathError::Local(lacking()))),
            || ready(Err(ProbeError::Connect(lacking()))),
        );
        let silent = || ready(Err(PathError::NoAnswer(MS)));
        let fine = || ready(Ok("fine".to_owned()));
        let is_local = |outcome: Outcome| outcome.unwrap_err().is_local();
        assert!(is_local(ends.path_decides(no_path(), fine(), MS).await));
        assert!(is_local(
            ends.path_decides(no_path(), no_direct(), MS).await
        ));
        assert!(!is_local(
            ends.path_decides(silent(), no_direct(), MS).await
        ));
        assert!(is_local(ends.both_decide(no_path(), fine()).await));
        assert!(is_local(ends.both_decide(ready(Ok(())), no_direct()).await));
        assert!(!is_local(ends.both_decide(silent(), no_direct()).await));
    }
}
