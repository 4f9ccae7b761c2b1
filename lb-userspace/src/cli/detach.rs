use std::{
    io::{self, Write},
    path::Path,
};

use hyper::Method;

use super::{
    args::{DetachArgs, Output},
    client::{Client, ClientError},
    commands::Session,
    error::CliError,
    render,
};
use crate::{
    api::{Detached, StatusInfo},
    config::Config,
    dataplane,
};

impl Session {
    /// Asks the daemon that holds the pins to take the data plane down; where there is none, does
    /// it from here.
    pub(super) async fn take_down(
        &self,
        args: DetachArgs,
        out: &mut impl Write,
    ) -> Result<(), CliError> {
        let named = match &args.config {
            Some(file) => Some(Config::load(file)?.daemon),
            None => None,
        };
        // Without either option any daemon that listens is meant, wherever its pins are.
        let asked_for = args
            .bpffs
            .or_else(|| named.as_ref().map(|daemon| daemon.bpffs.clone()));
        let settings = named.unwrap_or_default();
        let client = Client::new(self.socket.as_ref().unwrap_or(&settings.socket));

        if holds(&client, asked_for.as_deref()).await? {
            let reply = client.send(Method::POST, "/detach", &()).await?;
            let table = |done: &Detached| render::detached(done, None);
            return self.print(reply, table, out).await;
        }
        let pins = asked_for.unwrap_or(settings.bpffs);
        let done = dataplane::detach(&pins)?;
        match self.output {
            Output::Table => write!(out, "{}", render::detached(&done, Some(&pins)))?,
            Output::Json => {
                serde_json::to_writer_pretty(&mut *out, &done).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
        Ok(out.flush()?)
    }
}

/// Whether a daemon listens, and the pins that are asked for (any, if none are) are its own.
async fn holds(client: &Client, pins: Option<&Path>) -> Result<bool, ClientError> {
    match client.get("/status").await {
        Ok(reply) => {
            let status: StatusInfo = reply.decode().await?;
            Ok(pins.is_none_or(|pins| pins == status.bpffs))
        }
        Err(ClientError::Connect { source, .. })
            if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused]
                .contains(&source.kind()) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}
