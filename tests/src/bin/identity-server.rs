//! `identity-server NAME PORT`: an identity server as a process of its own, in the network
//! namespace that it is started in. See `Host::spawn_identity`.

use anyhow::{Context, Result, bail};
use lb_tests::lab::{IdentityServer, Netns};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, port] = &arguments[..] else {
        bail!("usage: identity-server NAME PORT");
    };
    let port = port
        .parse()
        .with_context(|| format!("{port:?} is no port"))?;
    let _server = IdentityServer::start(name, &Netns::current()?, port)?;
    println!("{name} listens as process {}", std::process::id());
    loop {
        std::thread::park();
    }
}
