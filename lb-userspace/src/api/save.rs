use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{Context, Saved};
use crate::model::Desired;

/// Why the running state could not be written to a file. The file is as it was.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}", path = .path.display())]
pub struct SaveError {
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

impl Context {
    /// Writes the running desired state to `file` (the daemon's own configuration where none is
    /// given), as a configuration that makes the same state again.
    pub(super) fn save(&self, file: Option<&Path>) -> Result<Saved, SaveError> {
        let file = file.unwrap_or(&self.config_file);
        let desired = Desired {
            services: self
                .control
                .snapshot()
                .services
                .iter()
                .map(|view| view.service.clone())
                .collect(),
        };
        let text = self.settings.with(desired).to_toml();
        replace(file, text.as_bytes()).map_err(|source| SaveError {
            path: file.to_owned(),
            source,
        })?;
        Ok(Saved {
            file: file.to_owned(),
        })
    }
}

const NEW_FILE_MODE: u32 = 0o644;

/// Replaces the content of `path` at one stroke, keeping its mode, owner and the symbolic links
/// that lead to it.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        other => other?,
    };
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::IsADirectory))?;
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    let mode = match fs::metadata(&path) {
        Ok(old) => {
            fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
            old.mode() & 0o7777
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => NEW_FILE_MODE,
        Err(error) => return Err(error),
    };
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    // Only now does the new name survive a power failure.
    fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_is_replaced_behind_its_link_and_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let (real, link) = (directory.path().join("real"), directory.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();

        replace(&link, b"new").unwrap();

        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::metadata(&real).unwrap().mode() & 0o7777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_new_file_can_be_read_by_everyone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new.toml");
        replace(&path, b"new").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, NEW_FILE_MODE);
    }

    #[test]
    fn a_directory_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
