use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::UnixListener;

/// Root and the socket's group: whoever may write to it commands the daemon.
const MODE: u32 = 0o660;

/// Why the daemon cannot listen on its socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("another daemon listens on {} already", .0.display())]
    InUse(PathBuf),
    #[error("{} is there already and is not a socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot {action} {}", .path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The daemon's listening socket; its file goes when this goes.
///
/// The file goes before the listener does, so that it cannot be one of a daemon that came after.
#[derive(Debug)]
pub struct Socket {
    pub(super) file: SocketFile,
    pub(super) listener: UnixListener,
}

#[derive(Debug)]
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost when it stays: the next daemon finds that nobody listens on it.
        let _ = fs::remove_file(&self.0);
    }
}

impl Socket {
    /// Listens on `path`, making its directory where it is missing and taking the place of a
    /// socket that nobody listens on any more. Must be called within a tokio runtime.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let io = |action, path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io {
                action,
                path,
                source,
            }
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(io("create directory", directory))?;
        }
        remove_if_stale(path)?;
        let listener = UnixListener::bind(path).map_err(io("listen on", path))?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))
            .map_err(io("set the mode of", path))?;
        Ok(Self { file, listener })
    }
}

fn remove_if_stale(path: &Path) -> Result<(), SocketError> {
    let io = |action| {
        move |source| SocketError::Io {
            action,
            path: path.to_owned(),
            source,
        }
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(io("remove the stale socket"))
        }
        Err(error) => Err(io("find out who listens on")(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn makes_the_directory_and_cleans_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/lbd.sock");
        let socket = Socket::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn takes_the_place_of_a_dead_daemon_but_not_of_a_living_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        // Dropping a std listener leaves its file, as a killed daemon does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());

        let living = Socket::bind(&path).unwrap();
        assert!(matches!(
            Socket::bind(&path),
            Err(SocketError::InUse(in_use)) if in_use == path
        ));
        drop(living);
    }

    #[tokio::test]
    async fn leaves_other_files_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lbd.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(
            Socket::bind(&path),
            Err(SocketError::NotASocket(_))
        ));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
