//! A small HTTP client, for counting where connections go. For load there is wrk.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use crate::lab::Host;

const PATIENCE: Duration = Duration::from_secs(5);

/// A kept-alive connection to one of the demo's servers.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream: BufReader::with_capacity(1024, stream),
        })
    }

    /// `GET /`: the name of the server that answers.
    pub(crate) fn ask(&mut self) -> io::Result<String> {
        self.stream
            .get_mut()
            .write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")?;
        let status = self.line()?;
        if !status.starts_with("HTTP/1.1 200 ") {
            return Err(malformed(&status));
        }
        let mut length = None;
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                None if line.is_empty() => break,
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().ok();
                }
                _ => {}
            }
        }
        let mut body = vec![0; length.ok_or_else(|| malformed("no length"))?];
        self.stream.read_exact(&mut body)?;
        String::from_utf8(body)
            .map(|body| body.trim_end().to_owned())
            .map_err(|_| malformed("no UTF-8"))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// Where connections went.
#[derive(Debug, Default)]
pub(crate) struct Spread {
    /// Connections by the server that answered.
    pub(crate) by_server: BTreeMap<String, u64>,
    /// Why the others failed.
    pub(crate) failures: Vec<String>,
}

/// Opens `count` connections, some at the same time; each asks once and is closed.
pub(crate) fn spread(client: &Host, to: SocketAddr, count: u32) -> Spread {
    const PARALLEL: u32 = 4;
    let begun = AtomicU32::new(0);
    let worker = || {
        let mut spread = Spread::default();
        while begun.fetch_add(1, Ordering::Relaxed) < count {
            match Connection::open(to).and_then(|mut connection| connection.ask()) {
                Ok(server) => *spread.by_server.entry(server).or_default() += 1,
                Err(error) => spread.failures.push(error.to_string()),
            }
        }
        spread
    };
    // Threads are born in the namespace of the thread that starts them.
    client.netns().run(|| {
        thread::scope(|scope| {
            let workers: Vec<_> = (0..PARALLEL).map(|_| scope.spawn(worker)).collect();
            let mut total = Spread::default();
            for worker in workers {
                let part = worker
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                for (server, count) in part.by_server {
                    *total.by_server.entry(server).or_default() += count;
                }
                total.failures.extend(part.failures);
            }
            total
        })
    })
}

/// Connections that were asked again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) connections: usize,
    /// Still answered, and by the same server.
    pub(crate) same: usize,
}

/// Connections that stay open, each with the server that it was given.
pub(crate) struct Held(Vec<(Connection, String)>);

/// Opens `count` connections that each have asked once.
pub(crate) fn hold(client: &Host, to: SocketAddr, count: usize) -> io::Result<Held> {
    let open = || -> io::Result<_> {
        let mut connection = Connection::open(to)?;
        let server = connection.ask()?;
        Ok((connection, server))
    };
    client
        .netns()
        .run(|| (0..count).map(|_| open()).collect::<io::Result<_>>())
        .map(Held)
}

impl Held {
    /// Asks again on every connection; the results by the server that it was given.
    pub(crate) fn ask_again(&mut self) -> BTreeMap<String, Asked> {
        let mut results = BTreeMap::<_, Asked>::new();
        for (connection, server) in &mut self.0 {
            let same = connection.ask().is_ok_and(|name| name == *server);
            let result = results.entry(server.clone()).or_default();
            result.connections += 1;
            result.same += usize::from(same);
        }
        results
    }
}
