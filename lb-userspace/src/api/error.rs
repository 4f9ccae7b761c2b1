use std::error::Error;

use axum::{
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{ErrorCode, ErrorInfo, ReloadError, SaveError, server::Pretty};
use crate::{dataplane::DataPlaneError, engine::ChangeError};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("no service is called {name:?}")]
    NoService { name: String, hint: String },
    #[error("no backend{} is called {name:?}", of(service))]
    NoBackend {
        name: String,
        /// The service that was looked through; all of them where it is `None`.
        service: Option<String>,
        hint: String,
    },
    #[error("the daemon knows no {0}")]
    NoRoute(String),
    #[error("{0}")]
    Request(String),
    #[error("{path} is not an absolute path", path = .0.display())]
    RelativePath(std::path::PathBuf),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Reload(#[from] ReloadError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error(transparent)]
    DataPlane(#[from] DataPlaneError),
    /// A request's task has panicked; the panic message is in the log.
    #[error("the daemon failed on this request; its log says where")]
    Panicked,
}

fn of(service: &Option<String>) -> String {
    service
        .as_ref()
        .map(|name| format!(" of service {name}"))
        .unwrap_or_default()
}

impl ApiError {
    fn code(&self) -> ErrorCode {
        match self {
            Self::NoService { .. } | Self::NoBackend { .. } | Self::NoRoute(_) => {
                ErrorCode::NotFound
            }
            Self::Request(_) | Self::RelativePath(_) => ErrorCode::InvalidRequest,
            Self::Reload(ReloadError::Config(_)) => ErrorCode::InvalidConfig,
            Self::Change(error) | Self::Reload(ReloadError::Change(error)) => change_code(error),
            Self::Reload(ReloadError::Panicked(_))
            | Self::Save(_)
            | Self::DataPlane(_)
            | Self::Panicked => ErrorCode::Failed,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NoService { hint, .. } | Self::NoBackend { hint, .. } => Some(hint.clone()),
            Self::NoRoute(_) => Some("lbctl and lbd may be of different versions".to_owned()),
            _ => None,
        }
    }
}

fn change_code(error: &ChangeError) -> ErrorCode {
    match error {
        ChangeError::UnknownService { .. } | ChangeError::UnknownBackend { .. } => {
            ErrorCode::NotFound
        }
        ChangeError::Conflict(_) | ChangeError::Full(_) => ErrorCode::Conflict,
        ChangeError::Stopped => ErrorCode::Stopping,
        ChangeError::DataPlane(_) | ChangeError::State(_) => ErrorCode::Failed,
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Request(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Request(rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::Request(rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let code = self.code();
        let status = match code {
            ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::InvalidConfig => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let info = ErrorInfo {
            error: with_causes(&self),
            code,
            hint: self.hint(),
        };
        (status, Pretty(info)).into_response()
    }
}

/// An error and its causes on one line: `write service record 3: Invalid argument`.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some errors repeat their cause in their own text.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_with_its_causes_and_none_twice() {
        let error = SaveError {
            path: "/etc/lb/lb.toml".into(),
            source: std::io::Error::other("no room"),
        };
        let text = "cannot write /etc/lb/lb.toml: no room";
        assert_eq!(with_causes(&error), text);
        assert_eq!(with_causes(&ApiError::from(error)), text);
    }
}
