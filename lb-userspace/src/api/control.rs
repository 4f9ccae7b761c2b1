use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::engine::{Change, ChangeError, Handle, Snapshot};

/// What the API needs of the engine.
pub trait Control: Send + Sync {
    fn snapshot(&self) -> Arc<Snapshot>;
    /// One line per thing that was changed.
    fn change(&self, change: Change) -> BoxFuture<'_, Result<Vec<String>, ChangeError>>;
}

impl Control for Handle {
    fn snapshot(&self) -> Arc<Snapshot> {
        Handle::snapshot(self)
    }

    fn change(&self, change: Change) -> BoxFuture<'_, Result<Vec<String>, ChangeError>> {
        Box::pin(Handle::change(self, change))
    }
}
