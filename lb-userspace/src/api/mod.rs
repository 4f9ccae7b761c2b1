//! The daemon's HTTP/JSON interface on a unix socket: what `lbctl` talks to.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /status` | | [`StatusInfo`] |
//! | `GET /services` | | list of [`ServiceInfo`] |
//! | `GET /services/{service}` | | [`ServiceDetail`] |
//! | `GET /backends?service=` | | list of [`BackendInfo`] |
//! | `POST /services/{service}/backends` | [`AddBackend`] | [`Changed`] |
//! | `PATCH /services/{service}/backends/{backend}` | [`EditBackend`] | [`Changed`] |
//! | `DELETE /services/{service}/backends/{backend}` | | [`Changed`] |
//! | `GET /conntrack?service=&backend=&limit=` | | list of [`ConnectionInfo`], streamed |
//! | `GET /conntrack/stats` | | [`ConntrackStats`] |
//! | `GET /stats` | | [`StatsInfo`] |
//! | `GET /stats/drops` | | list of [`DropInfo`] |
//! | `POST /reload` | [`FileRequest`] | [`Reloaded`] |
//! | `POST /save` | [`FileRequest`] | [`Saved`] |
//! | `POST /detach` | | [`Detached`] |
//!
//! Every refusal is an [`ErrorInfo`] with a fitting HTTP status. Whoever may open the socket can do
//! what the daemon can, including reading and writing files: its mode is 0660.

mod conntrack;
mod context;
mod control;
mod drops;
mod error;
mod lookup;
mod parts;
mod reload;
mod save;
mod server;
mod socket;
mod types;
mod views;
mod warnings;

pub use context::{Context, Detach, Settings};
pub use control::Control;
pub use error::ApiError;
pub(crate) use error::with_causes;
pub use reload::ReloadError;
pub use save::SaveError;
pub use server::{Ended, serve};
pub use socket::{Socket, SocketError};
pub use types::*;
