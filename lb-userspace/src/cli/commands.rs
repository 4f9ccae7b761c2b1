//! Each command: the request that it makes, and what becomes of the answer.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use hyper::Method;
use serde::de::DeserializeOwned;

use super::{
    args::{
        BackendCommand, BackendName, Command, ConntrackCommand, ConntrackFilter, Output,
        ServiceCommand, StatsCommand,
    },
    client::{Client, Reply},
    error::CliError,
    humane::printable,
    render,
};
use crate::{
    api::{
        AddBackend, BackendInfo, ConnectionInfo, DropInfo, EditBackend, FileRequest, ServiceInfo,
    },
    config::DaemonSettings,
    model::Admin,
};

/// Connections that a table shows when nobody asks for more.
const TABLE_LIMIT: u64 = 100;

/// What every command shares: whom to ask, and how to say what came of it.
pub(super) struct Session {
    pub(super) socket: Option<PathBuf>,
    pub(super) output: Output,
}

impl Session {
    pub(super) async fn run(&self, command: Command, out: &mut impl Write) -> Result<(), CliError> {
        match command {
            Command::Status => self.show("/status", render::status, out).await,
            Command::Service(ServiceCommand::List) => {
                let table = |list: &Vec<ServiceInfo>| render::services(list);
                self.show("/services", table, out).await
            }
            Command::Service(ServiceCommand::Show { name }) => {
                let path = format!("/services/{name}");
                self.show(&path, render::service, out).await
            }
            Command::Backend(command) => self.backend(command, out).await,
            Command::Conntrack(ConntrackCommand::List(filter)) => {
                self.connections(filter, out).await
            }
            Command::Conntrack(ConntrackCommand::Stats) => {
                self.show("/conntrack/stats", render::conntrack_stats, out)
                    .await
            }
            Command::Stats { what: None } => self.show("/stats", render::stats, out).await,
            Command::Stats {
                what: Some(StatsCommand::Drops),
            } => {
                let table = |list: &Vec<DropInfo>| render::drops(list);
                self.show("/stats/drops", table, out).await
            }
            Command::Reload { file } => {
                let reply = self.post_file("/reload", file).await?;
                self.print(reply, render::reloaded, out).await
            }
            Command::Save { file } => {
                let reply = self.post_file("/save", file).await?;
                self.print(reply, render::saved, out).await
            }
            Command::Detach(args) => self.take_down(args, out).await,
            Command::Decap(command) => self.decap(command, out).await,
        }
    }

    async fn backend(&self, command: BackendCommand, out: &mut impl Write) -> Result<(), CliError> {
        let (backend, edit) = match command {
            BackendCommand::List { service } => {
                let path = query("/backends", &[("service", service.map(String::from))]);
                let table = |list: &Vec<BackendInfo>| render::backends(list);
                return self.show(&path, table, out).await;
            }
            BackendCommand::Add {
                service,
                address,
                name,
                weight,
            } => {
                let body = AddBackend {
                    name,
                    address,
                    weight,
                };
                let path = format!("/services/{service}/backends");
                let reply = self.client().send(Method::POST, &path, &body).await?;
                return self.print(reply, render::changed, out).await;
            }
            BackendCommand::Remove(backend) => {
                let reply = self.client().delete(&path_of(&backend)).await?;
                return self.print(reply, render::changed, out).await;
            }
            BackendCommand::Set { backend, weight } => (backend, EditBackend::Weight(weight)),
            BackendCommand::Drain(backend) => (backend, EditBackend::Admin(Admin::Drain)),
            BackendCommand::Enable(backend) => (backend, EditBackend::Admin(Admin::Enabled)),
            BackendCommand::Maint(backend) => (backend, EditBackend::Admin(Admin::Maint)),
        };
        let path = path_of(&backend);
        let reply = self.client().send(Method::PATCH, &path, &edit).await?;
        self.print(reply, render::changed, out).await
    }

    async fn connections(
        &self,
        filter: ConntrackFilter,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let limit = match (filter.limit, self.output) {
            (Some(limit), _) => Some(limit.get()),
            (None, Output::Table) => Some(TABLE_LIMIT),
            (None, Output::Json) => None,
        };
        let path = query(
            "/conntrack",
            &[
                ("service", filter.service.map(String::from)),
                ("backend", filter.backend.map(String::from)),
                ("limit", limit.map(|limit| limit.to_string())),
            ],
        );
        let reply = self.client().get(&path).await?;
        let matching = reply.matching;
        let table = |list: &Vec<ConnectionInfo>| render::connections(list, matching);
        self.print(reply, table, out).await
    }

    fn client(&self) -> Client {
        match &self.socket {
            Some(socket) => Client::new(socket),
            None => Client::new(&DaemonSettings::default().socket),
        }
    }

    async fn post_file(&self, path: &str, file: Option<PathBuf>) -> Result<Reply, CliError> {
        let file = file.map(|file| absolute(&file)).transpose()?;
        let body = FileRequest { file };
        Ok(self.client().send(Method::POST, path, &body).await?)
    }

    async fn show<T: DeserializeOwned>(
        &self,
        path: &str,
        table: impl FnOnce(&T) -> String,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let reply = self.client().get(path).await?;
        self.print(reply, table, out).await
    }

    /// As a table; or the daemon's JSON as it is, with what a newer daemon may have added.
    pub(super) async fn print<T: DeserializeOwned>(
        &self,
        mut reply: Reply,
        table: impl FnOnce(&T) -> String,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        match self.output {
            Output::Table => {
                let text = table(&reply.decode().await?);
                out.write_all(printable(&text).as_bytes())?;
            }
            Output::Json => {
                while let Some(chunk) = reply.chunk().await? {
                    out.write_all(&chunk)?;
                }
            }
        }
        Ok(out.flush()?)
    }
}

fn path_of(backend: &BackendName) -> String {
    let BackendName { service, name } = backend;
    format!("/services/{service}/backends/{name}")
}

/// Adds the parameters that have a value. Names and numbers need no escaping.
fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let mut text = path.to_owned();
    let mut separator = '?';
    for (key, value) in parameters {
        if let Some(value) = value {
            text.push(separator);
            text.push_str(key);
            text.push('=');
            text.push_str(value);
            separator = '&';
        }
    }
    text
}

/// The daemon's working directory is not ours.
fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::Path {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_what_has_a_value() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(query("/x", &[("a", None), ("b", None)]), "/x");
        assert_eq!(
            query("/x", &[("a", some("1")), ("b", None), ("c", some("d"))]),
            "/x?a=1&c=d"
        );
    }
}
