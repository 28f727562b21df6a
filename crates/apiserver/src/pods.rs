//! The seam between the API server and whoever runs pods: logs, exec, port-forward.
//! The API server owns the wire protocols; the implementation owns processes and namespaces.

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Byte stream to read from a container.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// Byte stream to write to a container.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Runs pods: the one open seam of the API server. The sandbox implements it; tests use a fake.
pub trait PodAccess: Send + Sync {
    /// Opens a container's log as plain text. With `follow`, the stream ends when the container does.
    fn logs(
        &self,
        target: Target,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<Reader, PodError>>;
    /// Starts a command inside a running container.
    fn exec(
        &self,
        target: Target,
        options: ExecOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>>;
    /// Connects to the standard streams of a container's own program. Without an implementation of its own, the
    /// output is what the log follows, and there is no standard input.
    fn attach(
        &self,
        target: Target,
        options: AttachOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>> {
        if options.stdin {
            let name = target.container.unwrap_or_default();
            return Box::pin(async move { Err(PodError::no_stdin(&name)) });
        }
        let follow = LogOptions {
            follow: true,
            tail_lines: Some(0),
            ..LogOptions::default()
        };
        let log = self.logs(target, follow);
        Box::pin(async move {
            let stdout = log.await?;
            // The log ends with the container; its exit code is not the attached client's.
            let (resize, exit) = (mpsc::channel(1).0, Box::pin(async { 0 }));
            Ok(Execution {
                stdin: None,
                stdout,
                stderr: None,
                resize,
                exit,
            })
        })
    }
    /// Opens a TCP connection to a port on the pod's loopback, as port-forward does.
    fn connect(
        &self,
        target: Target,
        port: u16,
    ) -> BoxFuture<'static, Result<(Reader, Writer), PodError>>;
}

/// Which container.
#[derive(Debug, Clone)]
pub struct Target {
    /// Namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Container; absent: the only one, or the one named by `kubectl.kubernetes.io/default-container`.
    pub container: Option<String>,
}

/// What part of a log is wanted.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// The previous instance of the container.
    pub previous: bool,
    /// Prefix each line with an RFC 3339 time.
    pub timestamps: bool,
    /// Only this many last lines.
    pub tail_lines: Option<u64>,
    /// Only lines of the last seconds.
    pub since_seconds: Option<u64>,
    /// At most this many bytes.
    pub limit_bytes: Option<u64>,
}

/// A command to run.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Whether standard input is connected.
    pub stdin: bool,
    /// Whether it runs on a terminal (then there is no separate standard error).
    pub tty: bool,
}

/// Which streams of a running container to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachOptions {
    /// Whether standard input is connected.
    pub stdin: bool,
    /// Whether the client has a terminal; the container must have one, too.
    pub tty: bool,
}

/// A running command. Dropping `stdin` closes it; dropping the whole value kills a command
/// that was started for it, and only leaves a container that it is attached to.
pub struct Execution {
    /// Standard input, when asked for.
    pub stdin: Option<Writer>,
    /// Standard output (or the terminal).
    pub stdout: Reader,
    /// Standard error; absent on a terminal.
    pub stderr: Option<Reader>,
    /// Terminal size changes as (columns, rows).
    pub resize: mpsc::Sender<(u16, u16)>,
    /// Resolves to the exit code when the command ends (128 + signal when killed).
    pub exit: BoxFuture<'static, i32>,
}

/// Why a pod cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// No such pod or container is running here (404).
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense for the pod, such as several containers and none named (400).
    #[error("{0}")]
    Invalid(String),
    /// It failed for another reason (500).
    #[error("{0}")]
    Failed(String),
}

impl PodError {
    /// A container without `stdin: true` cannot be typed to.
    pub fn no_stdin(container: &str) -> Self {
        Self::Invalid(format!(
            "container {container} has no standard input to attach to: set stdin: true in the pod, use exec, or attach without stdin"
        ))
    }
}
