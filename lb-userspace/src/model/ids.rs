use serde::{Deserialize, Serialize};

/// Index of a service in the data plane's arrays, 1..; 0 is reserved for "no service".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceId(pub u16);

/// Index of a backend in the data plane's arrays, 1..; 0 is reserved for "no backend".
///
/// One index stands for one backend *of one service*: the same address in two services has two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BackendIndex(pub u16);
