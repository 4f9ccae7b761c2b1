//! Where toolchains may be, and in which order to look there.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::PINNED_NIGHTLY;

/// Where distributions put their Rust.
const DISTRIBUTION: &str = "/usr";

/// Where a toolchain is, or should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// `None` where a toolchain of this name is not installed.
    pub(crate) sysroot: Option<PathBuf>,
}

impl Place {
    pub(crate) fn at(sysroot: impl Into<PathBuf>) -> Self {
        let sysroot = sysroot.into();
        Self {
            name: sysroot.display().to_string(),
            sysroot: Some(sysroot),
        }
    }
}

/// The toolchain that the user named: one of the installed, with or without the host's triple
/// after its name, or a path.
pub(crate) fn named(wanted: &str, installed: &[Place]) -> Place {
    if wanted.starts_with('/') {
        return Place::at(wanted);
    }
    let sysroot = installed
        .iter()
        .find(|place| place.name == wanted)
        .or_else(|| installed.iter().find(|place| is_release(place, wanted)))
        .and_then(|place| place.sysroot.clone());
    Place {
        name: wanted.to_owned(),
        sysroot,
    }
}

/// Whether the place's name is `release` and a triple: `nightly-x86_64-…` is a `nightly`, and
/// `nightly-2026-05-20-x86_64-…` is not.
fn is_release(place: &Place, release: &str) -> bool {
    place
        .name
        .strip_prefix(release)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|triple| triple.starts_with(|first: char| first.is_ascii_alphabetic()))
}

/// Where to look, best first, each once.
pub(crate) fn candidates(installed: Vec<Place>, in_path: Option<PathBuf>) -> Vec<Place> {
    let (pinned, others): (Vec<_>, Vec<_>) = installed
        .into_iter()
        .partition(|place| is_release(place, PINNED_NIGHTLY));
    let mut places: Vec<Place> = Vec::new();
    for place in pinned
        .into_iter()
        .chain(others)
        .chain(in_path.map(Place::at))
        .chain([Place::at(DISTRIBUTION)])
    {
        if places.iter().all(|known| known.sysroot != place.sysroot) {
            places.push(place);
        }
    }
    places
}

/// What `rustup` has installed.
pub(crate) fn installed(rustup: &Path) -> Vec<Place> {
    let output = Command::new(rustup)
        .args(["toolchain", "list", "--verbose"])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            parse_installed(&String::from_utf8_lossy(&output.stdout))
        }
        _ => Vec::new(),
    }
}

/// Lines such as `stable-x86_64-unknown-linux-gnu (active, default) /home/me/.rustup/…`.
fn parse_installed(list: &str) -> Vec<Place> {
    list.lines()
        .filter_map(|line| {
            let path = line.find('/')?;
            let name = line.split_whitespace().next()?;
            Some(Place {
                name: name.to_owned(),
                sysroot: Some(PathBuf::from(line[path..].trim_end())),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
stable-x86_64-unknown-linux-gnu (active, default) /home/u/.rustup/toolchains/stable-x86_64-unknown-linux-gnu
nightly-x86_64-unknown-linux-gnu /home/u/.rustup/toolchains/nightly-x86_64-unknown-linux-gnu
nightly-2026-05-20-x86_64-unknown-linux-gnu /home/u/my rust/nightly-2026-05-20-x86_64-unknown-linux-gnu
";

    fn names(places: &[Place]) -> Vec<&str> {
        places.iter().map(|place| place.name.as_str()).collect()
    }

    #[test]
    fn the_list_of_rustup_is_read_with_its_notes_and_spaces() {
        let places = parse_installed(LIST);
        assert_eq!(
            names(&places),
            [
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu",
                "nightly-2026-05-20-x86_64-unknown-linux-gnu",
            ]
        );
        assert_eq!(
            places[2].sysroot.as_deref(),
            Some(Path::new(
                "/home/u/my rust/nightly-2026-05-20-x86_64-unknown-linux-gnu"
            ))
        );
        assert_eq!(parse_installed("no installed toolchains\n"), []);
    }

    #[test]
    fn the_pinned_nightly_comes_first_and_the_distribution_last() {
        let places = candidates(parse_installed(LIST), Some("/opt/rust".into()));
        assert_eq!(
            names(&places),
            [
                "nightly-2026-05-20-x86_64-unknown-linux-gnu",
                "stable-x86_64-unknown-linux-gnu",
                "nightly-x86_64-unknown-linux-gnu",
                "/opt/rust",
                "/usr",
            ]
        );
    }

    #[test]
    fn one_toolchain_under_two_names_is_looked_at_once() {
        assert_eq!(
            names(&candidates(Vec::new(), Some("/usr".into()))),
            ["/usr"]
        );
    }

    #[test]
    fn a_named_toolchain_is_found_with_and_without_its_triple() {
        let installed = parse_installed(LIST);
        let sysroot = |wanted| named(wanted, &installed).sysroot;
        assert_eq!(sysroot("nightly"), installed[1].sysroot);
        assert_eq!(sysroot("nightly-2026-05-20"), installed[2].sysroot);
        assert_eq!(
            sysroot("stable-x86_64-unknown-linux-gnu"),
            installed[0].sysroot
        );
        assert_eq!(sysroot("/usr"), Some(PathBuf::from("/usr")));
        assert_eq!(sysroot("beta"), None);
    }
}
