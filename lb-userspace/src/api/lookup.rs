use std::collections::HashMap;

use super::ApiError;
use crate::{
    engine::{ServiceView, Snapshot},
    model::{BackendIndex, Name, nearest},
};

pub(super) fn find_service<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a ServiceView, ApiError> {
    let names = || snapshot.services.iter().map(|s| s.service.name.as_str());
    snapshot
        .services
        .iter()
        .find(|s| s.service.name.as_str() == name)
        .ok_or_else(|| ApiError::NoService {
            name: name.to_owned(),
            hint: closest(name, names()).unwrap_or_else(|| match names().count() {
                0 => "there is no service yet".to_owned(),
                _ => "`lbctl service list` lists them".to_owned(),
            }),
        })
}

/// `did you mean "web-1"?`, where one of `names` is near enough.
pub(super) fn closest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(name, names).map(|near| format!("did you mean {near:?}?"))
}

/// Names by index, for what the data plane knows by index only.
pub(super) fn backend_names(snapshot: &Snapshot) -> HashMap<BackendIndex, Name> {
    snapshot
        .services
        .iter()
        .flat_map(|s| &s.backends)
        .map(|b| (b.index, b.backend.name.clone()))
        .collect()
}
