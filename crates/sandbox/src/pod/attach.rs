//! Connecting to the standard streams of a container's own program, as `kubectl attach` and `kubectl run -i` do.
//! Any number of clients see the output; none of them can hold the container up. Commands of their own in a
//! container are started by `exec`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use futures::FutureExt;
use k8s_openapi::api::core::v1::Container;
use lateen_apiserver::pods::{AttachOptions, Execution, PodError, Reader, Writer};
use parking_lot::Mutex;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::net::unix::pipe;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::exec::{null, pipe_pair};
use super::handle::Run;
use super::logs::{Piece, Stream};
use super::terminal::Terminal;

/// How much output waits for an attached client before it falls behind.
const WINDOW: usize = 64 << 10;

/// A container's standard input.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// At its end from the beginning.
    Closed,
    /// The pipe's end to write to, until a client of a `stdinOnce` container has taken it along.
    Pipe(Arc<Mutex<Option<OwnedFd>>>),
    /// The terminal's.
    Terminal(Terminal),
}

impl Input {
    /// The file that the container reads, and the other end of it.
    pub(crate) fn new(container: &Container) -> io::Result<(Arc<OwnedFd>, Self)> {
        if container.stdin != Some(true) {
            return Ok((null()?, Self::Closed));
        }
        let (read, write) = pipe_pair()?;
        Ok((
            Arc::new(read),
            Self::Pipe(Arc::new(Mutex::new(Some(write)))),
        ))
    }

    /// For one client to write to. With `once` it is the only one: the container's input ends with it.
    fn writer(&self, once: bool) -> io::Result<Option<Writer>> {
        let end = match self {
            Self::Closed => return Ok(None),
            Self::Terminal(terminal) => return Ok(Some(Box::new(terminal.clone()))),
            Self::Pipe(end) if once => end.lock().take(),
            Self::Pipe(end) => end.lock().as_ref().map(OwnedFd::try_clone).transpose()?,
        };
        end.map(|end| Ok(Box::new(pipe::Sender::from_owned_fd(end)?) as Writer))
            .transpose()
    }
}

/// Connects to a running container.
///
/// # Errors
/// It has no input or no terminal to connect to, or has just ended.
pub(crate) fn open(
    run: &Run,
    container: &Container,
    options: AttachOptions,
) -> Result<Execution, PodError> {
    let name = &container.name;
    if options.tty && container.tty != Some(true) {
        return Err(PodError::Invalid(format!(
            "container {name} has no terminal to attach to: set tty: true in the pod, or attach without -t"
        )));
    }
    if options.stdin && container.stdin != Some(true) {
        return Err(PodError::no_stdin(name));
    }
    let listener = run
        .log
        .listen()
        .ok_or_else(|| PodError::Failed(format!("container {name} has ended")))?;
    let (out_write, out_read) = tokio::io::duplex(WINDOW);
    let (err_write, err_read) = tokio::io::duplex(WINDOW);
    tokio::spawn(copy(listener, out_write, err_write));
    let once = container.stdin_once == Some(true);
    let stdin = match options.stdin {
        true => run
            .input
            .writer(once)
            .map_err(|e| PodError::Failed(format!("cannot open its input: {e}")))?,
        false => None,
    };
    let process = run.process.clone();
    Ok(Execution {
        stdin,
        stdout: Box::new(out_read),
        stderr: (!options.tty).then(|| Box::new(err_read) as Reader),
        resize: resizer(&run.input),
        // The container's exit code is in its status; attaching itself went well.
        exit: async move {
            process.ended().await;
            0
        }
        .boxed(),
    })
}

/// Takes window sizes for as long as the client is there.
fn resizer(input: &Input) -> mpsc::Sender<(u16, u16)> {
    let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
    if let Input::Terminal(terminal) = input {
        let terminal = terminal.clone();
        tokio::spawn(async move {
            while let Some((columns, rows)) = sizes.recv().await {
                terminal.resize(columns, rows);
            }
        });
    }
    resize
}

/// Hands output on until the program closes it or the client is gone.
async fn copy(mut from: Receiver<Piece>, mut out: DuplexStream, mut err: DuplexStream) {
    loop {
        let written = match from.recv().await {
            Ok((Stream::Out, bytes)) => out.write_all(&bytes).await,
            Ok((Stream::Err, bytes)) => err.write_all(&bytes).await,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if written.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
