//! What the operator can ask for, and what it does to the desired state. Pure.

use std::fmt;

use super::{
    ids::AllocationError,
    settings::{difference, differences, is_in_maps, settings},
    state::StateError,
};
use crate::{
    dataplane::DataPlaneError,
    model::{Admin, Backend, ConflictKind, Desired, Name, Service, Weight, nearest},
};

/// A change of the desired state.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    AddBackend {
        service: Name,
        backend: Backend,
    },
    RemoveBackend {
        service: Name,
        backend: Name,
    },
    SetWeight {
        service: Name,
        backend: Name,
        weight: Weight,
    },
    SetAdmin {
        service: Name,
        backend: Name,
        admin: Admin,
    },
    /// What the configuration file says now takes the place of everything.
    Replace(Desired),
}

/// Why a change was refused, or is not complete.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("there is no service called {name}{}", did_you_mean(.suggestion.as_ref()))]
    UnknownService {
        name: Name,
        suggestion: Option<Name>,
    },
    #[error("service {service} has no backend called {name}{}", did_you_mean(.suggestion.as_ref()))]
    UnknownBackend {
        service: Name,
        name: Name,
        suggestion: Option<Name>,
    },
    #[error(transparent)]
    Conflict(#[from] ConflictKind),
    #[error(transparent)]
    Full(#[from] AllocationError),
    /// Nothing was changed.
    #[error("the change could not be recorded, so it was not made")]
    State(#[source] StateError),
    /// The change stands, and what is missing of it is tried again every second.
    #[error("the change is recorded, but the data plane does not follow yet")]
    DataPlane(#[source] DataPlaneError),
    #[error("the engine has stopped")]
    Stopped,
}

fn did_you_mean(suggestion: Option<&Name>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean {name}?"))
}

impl Change {
    /// The desired state with this change.
    ///
    /// # Errors
    ///
    /// It names something that is not there, or breaks a rule.
    pub fn apply_to(self, desired: &Desired) -> Result<Desired, ChangeError> {
        let mut next = desired.clone();
        match self {
            Self::AddBackend { service, backend } => {
                find_service(&mut next, &service)?.backends.push(backend);
            }
            Self::RemoveBackend { service, backend } => {
                let service = find_service(&mut next, &service)?;
                find_backend(service, &backend)?;
                service.backends.retain(|known| known.name != backend);
            }
            Self::SetWeight {
                service,
                backend,
                weight,
            } => find_backend(find_service(&mut next, &service)?, &backend)?.weight = weight,
            Self::SetAdmin {
                service,
                backend,
                admin,
            } => find_backend(find_service(&mut next, &service)?, &backend)?.admin = admin,
            Self::Replace(wanted) => next = wanted,
        }
        match next.conflict() {
            Some(conflict) => Err(conflict.kind.into()),
            None => Ok(next),
        }
    }
}

fn find_service<'d>(desired: &'d mut Desired, name: &Name) -> Result<&'d mut Service, ChangeError> {
    let suggestion = suggestion(name, desired.services.iter().map(|s| &s.name));
    desired
        .service_mut(name.as_str())
        .ok_or_else(|| ChangeError::UnknownService {
            name: name.clone(),
            suggestion,
        })
}

fn find_backend<'s>(service: &'s mut Service, name: &Name) -> Result<&'s mut Backend, ChangeError> {
    let suggestion = suggestion(name, service.backends.iter().map(|b| &b.name));
    let service_name = service.name.clone();
    service
        .backend_mut(name.as_str())
        .ok_or_else(|| ChangeError::UnknownBackend {
            service: service_name,
            name: name.clone(),
            suggestion,
        })
}

fn suggestion<'n>(name: &Name, candidates: impl Iterator<Item = &'n Name> + Clone) -> Option<Name> {
    let near = nearest(name.as_str(), candidates.clone().map(Name::as_str))?;
    candidates.into_iter().find(|n| n.as_str() == near).cloned()
}

/// Something that the running desired state has and its file has not, or the other way round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    service: Name,
    subject: Subject,
    what: String,
}

/// What an edit is about.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// The service as a whole.
    Service,
    /// One of its settings, by its key.
    Setting(&'static str),
    Backend(Name),
}

impl Edit {
    /// Whether both states agree on what was edited.
    pub(super) fn is_in_both(&self, one: &Desired, other: &Desired) -> bool {
        let service = |desired: &'_ Desired| desired.service(self.service.as_str()).cloned();
        let (one, other) = (service(one), service(other));
        match &self.subject {
            Subject::Service => one.is_some() == other.is_some(),
            Subject::Setting(key) => {
                let value = |service: Option<Service>| {
                    let of_key = settings(&service?).into_iter().find(|(k, _)| k == key);
                    of_key.map(|(_, value)| value)
                };
                value(one) == value(other)
            }
            Subject::Backend(name) => {
                let backend = |service: Option<Service>| service?.backend(name.as_str()).cloned();
                backend(one) == backend(other)
            }
        }
    }

    /// Whether it is of no consequence for what the data plane holds, so that no plan tells it.
    pub(super) fn is_beside_the_maps(&self) -> bool {
        matches!(self.subject, Subject::Setting(key) if !is_in_maps(key))
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.subject {
            Subject::Backend(backend) => write!(
                f,
                "service {}: backend {backend} {}",
                self.service, self.what
            ),
            Subject::Service | Subject::Setting(_) => {
                write!(f, "service {} {}", self.service, self.what)
            }
        }
    }
}

/// What distinguishes `running` from the file that it was loaded from.
pub fn edits(file: &Desired, running: &Desired) -> Vec<Edit> {
    let mut edits = Vec::new();
    let of_service = |service: &Service, what: &str| Edit {
        service: service.name.clone(),
        subject: Subject::Service,
        what: what.to_owned(),
    };
    for service in &running.services {
        match file.service(service.name.as_str()) {
            Some(in_file) => {
                edits.extend(setting_edits(in_file, service));
                edits.extend(backend_edits(in_file, service));
            }
            None => edits.push(of_service(service, "added")),
        }
    }
    for service in &file.services {
        if running.service(service.name.as_str()).is_none() {
            edits.push(of_service(service, "removed"));
        }
    }
    edits
}

fn setting_edits(file: &Service, running: &Service) -> impl Iterator<Item = Edit> {
    let address = (file.listen != running.listen).then(|| {
        let (before, now) = (file.listen.to_string(), running.listen.to_string());
        (Subject::Service, difference("listen", &before, &now))
    });
    let settings = differences(file, running)
        .into_iter()
        .map(|(key, what)| (Subject::Setting(key), what));
    let name = running.name.clone();
    address
        .into_iter()
        .chain(settings)
        .map(move |(subject, what)| Edit {
            service: name.clone(),
            subject,
            what,
        })
}

fn backend_edits(file: &Service, running: &Service) -> Vec<Edit> {
    let edit = |backend: &Backend, what| Edit {
        service: running.name.clone(),
        subject: Subject::Backend(backend.name.clone()),
        what,
    };
    let mut edits = Vec::new();
    for now in &running.backends {
        let Some(before) = file.backend(now.name.as_str()) else {
            let what = format!("({}) added, with weight {}", now.address, now.weight);
            edits.push(edit(now, what));
            continue;
        };
        let mut differs = |key: &str, old: String, new: String| {
            if old != new {
                edits.push(edit(now, difference(key, &old, &new)));
            }
        };
        differs(
            "address",
            before.address.to_string(),
            now.address.to_string(),
        );
        differs("weight", before.weight.to_string(), now.weight.to_string());
        differs("admin", before.admin.to_string(), now.admin.to_string());
    }
    for before in &file.backends {
        if running.backend(before.name.as_str()).is_none() {
            edits.push(edit(before, "removed".to_owned()));
        }
    }
    edits
}
