//! Reaching into pods: logs, commands, connections. This is the sandbox's side of the API server's seam.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use lateen_apiserver::pods::{
    AttachOptions, ExecOptions, Execution, LogOptions, PodAccess, PodError, Reader, Target, Writer,
};
use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::exec::{self, Files, KillOnDrop, pipe_pair};
use super::handle::{PodHandle, Run};
use super::process::Reaper;
use super::state;
use super::terminal::Terminal;
use super::{attach, logs, process};
use crate::cluster_network::connect_inside;

/// The pods of this node. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    pods: Arc<RwLock<Vec<Arc<PodHandle>>>>,
}

impl Registry {
    /// All pods.
    pub(crate) fn all(&self) -> Vec<Arc<PodHandle>> {
        self.pods.read().clone()
    }

    /// The pod with a unique id.
    pub(crate) fn by_uid(&self, uid: &str) -> Option<Arc<PodHandle>> {
        self.pods.read().iter().find(|p| p.uid == uid).cloned()
    }

    pub(super) fn add(&self, pod: Arc<PodHandle>) {
        self.pods.write().push(pod);
    }

    pub(super) fn remove(&self, uid: &str) {
        self.pods.write().retain(|pod| pod.uid != uid);
    }

    /// The newest pod of a name: a replaced one may still be ending.
    fn find(&self, target: &Target) -> Result<Arc<PodHandle>, PodError> {
        self.pods
            .read()
            .iter()
            .rev()
            .find(|p| p.namespace == target.namespace && p.name == target.pod)
            .cloned()
            .ok_or_else(|| {
                PodError::NotFound(format!("pod \"{}\" does not run on this node", target.pod))
            })
    }
}

/// Reaches into the pods of a registry.
#[derive(Debug)]
pub(crate) struct Access {
    registry: Registry,
    reaper: Reaper,
}

impl Access {
    /// Access to the pods of a registry.
    pub(crate) fn new(registry: Registry, reaper: Reaper) -> Self {
        Self { registry, reaper }
    }
}

impl PodAccess for Access {
    fn logs(
        &self,
        target: Target,
        options: LogOptions,
    ) -> BoxFuture<'static, Result<Reader, PodError>> {
        let found = self.registry.find(&target).and_then(|pod| {
            let name = container_name(&pod, &target)?;
            let runs = pod.runs(&name);
            let log = if options.previous {
                runs.previous
            } else {
                runs.current.map(|run| run.log)
            };
            log.ok_or_else(|| {
                PodError::Invalid(if options.previous {
                    format!(
                        "previous terminated container \"{name}\" in pod \"{}\" not found",
                        pod.name
                    )
                } else {
                    format!(
                        "container \"{name}\" in pod \"{}\" is waiting to start: {}",
                        pod.name,
                        waiting_reason(&pod, &name)
                    )
                })
            })
        });
        async move { found.map(|log| logs::open(log, options)) }.boxed()
    }

    fn exec(
        &self,
        target: Target,
        options: ExecOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>> {
        let found = self.registry.find(&target).and_then(|pod| {
            let name = container_name(&pod, &target)?;
            running(&pod, &name)
        });
        let reaper = self.reaper.clone();
        async move { execute(&reaper, &found?, options).await }.boxed()
    }

    fn attach(
        &self,
        target: Target,
        options: AttachOptions,
    ) -> BoxFuture<'static, Result<Execution, PodError>> {
        let attached = self.registry.find(&target).and_then(|pod| {
            let name = container_name(&pod, &target)?;
            let run = running(&pod, &name)?;
            let spec = pod.spec();
            let container = state::containers(&spec)
                .into_iter()
                .find(|(_, c)| c.name == name)
                .map(|(_, c)| c.clone())
                .unwrap_or_default();
            attach::open(&run, &container, options)
        });
        async move { attached }.boxed()
    }

    fn connect(
        &self,
        target: Target,
        port: u16,
    ) -> BoxFuture<'static, Result<(Reader, Writer), PodError>> {
        let found = self.registry.find(&target).and_then(|pod| {
            pod.network()
                .ok_or_else(|| PodError::Failed(format!("pod \"{}\" has no network now", pod.name)))
        });
        async move {
            let network = found?;
            let (sender, receiver) = tokio::sync::oneshot::channel();
            std::thread::Builder::new()
                .name("port-forward".into())
                .spawn(move || {
                    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                    let _ = sender.send(connect_inside(&network.net, to));
                })
                .map_err(|e| PodError::Failed(e.to_string()))?;
            let refused = |e: String| {
                PodError::Failed(format!(
                    "failed to connect to localhost:{port} inside the pod: {e}"
                ))
            };
            let stream = receiver
                .await
                .map_err(|e| refused(e.to_string()))?
                .map_err(|e| refused(e.to_string()))?;
            stream
                .set_nonblocking(true)
                .map_err(|e| refused(e.to_string()))?;
            let stream = TcpStream::from_std(stream).map_err(|e| refused(e.to_string()))?;
            let (read, write) = stream.into_split();
            Ok((Box::new(read) as Reader, Box::new(write) as Writer))
        }
        .boxed()
    }
}

/// The container that is meant.
fn container_name(pod: &PodHandle, target: &Target) -> Result<String, PodError> {
    let spec = pod.spec();
    let names: Vec<&str> = state::containers(&spec)
        .into_iter()
        .map(|(_, c)| c.name.as_str())
        .collect();
    if let Some(name) = target.container.as_deref().filter(|n| !n.is_empty()) {
        return match names.contains(&name) {
            true => Ok(name.to_owned()),
            false => Err(PodError::Invalid(format!(
                "container {name} is not valid for pod {}",
                pod.name
            ))),
        };
    }
    let object = pod.pod();
    let annotations = object.metadata.annotations.as_ref();
    let preferred = annotations
        .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
        .filter(|name| names.contains(&name.as_str()));
    match (preferred, spec.containers.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.name.clone()),
        (None, _) => Err(PodError::Invalid(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            pod.name,
            names.join(" ")
        ))),
    }
}

fn running(pod: &PodHandle, name: &str) -> Result<Run, PodError> {
    pod.runs(name)
        .current
        .filter(|run| run.process.running())
        .ok_or_else(|| {
            PodError::Failed(format!(
                "container \"{name}\" of pod \"{}\" is not running",
                pod.name
            ))
        })
}

fn waiting_reason(pod: &PodHandle, name: &str) -> String {
    pod.read(|s| match s.containers.get(name).map(|one| &one.now) {
        Some(state::Now::Waiting { reason, message }) if message.is_empty() => reason.clone(),
        Some(state::Now::Waiting { reason, message }) => format!("{reason}: {message}"),
        _ => "ContainerCreating".into(),
    })
}

async fn execute(reaper: &Reaper, run: &Run, options: ExecOptions) -> Result<Execution, PodError> {
    let fail = |e: std::io::Error| PodError::Failed(format!("cannot open its files: {e}"));
    if options.tty {
        let null = exec::null().map_err(fail)?;
        let files = Files {
            stdin: null.clone(),
            stdout: null.clone(),
            stderr: null,
        };
        let launched = exec::start(reaper, run, options.command, true, files)
            .await
            .map_err(PodError::Failed)?;
        let terminal = launched
            .terminal
            .ok_or_else(|| PodError::Failed("the command got no terminal".into()))?;
        let terminal = Terminal::new(terminal).map_err(fail)?;
        let (resize, mut sizes) = mpsc::channel::<(u16, u16)>(4);
        let sized = terminal.clone();
        tokio::spawn(async move {
            while let Some((columns, rows)) = sizes.recv().await {
                sized.resize(columns, rows);
            }
        });
        return Ok(Execution {
            stdin: options.stdin.then(|| Box::new(terminal.clone()) as Writer),
            stdout: Box::new(terminal),
            stderr: None,
            resize,
            exit: exit(launched.process),
        });
    }
    let (in_read, in_write) = pipe_pair().map_err(fail)?;
    let (out_read, out_write) = pipe_pair().map_err(fail)?;
    let (err_read, err_write) = pipe_pair().map_err(fail)?;
    let stdin = if options.stdin {
        Arc::new(in_read)
    } else {
        exec::null().map_err(fail)?
    };
    let files = Files {
        stdin,
        stdout: Arc::new(out_write),
        stderr: Arc::new(err_write),
    };
    let launched = exec::start(reaper, run, options.command, false, files)
        .await
        .map_err(PodError::Failed)?;
    let writer = pipe::Sender::from_owned_fd(in_write).map_err(fail)?;
    let out = pipe::Receiver::from_owned_fd(out_read).map_err(fail)?;
    let err = pipe::Receiver::from_owned_fd(err_read).map_err(fail)?;
    Ok(Execution {
        stdin: options.stdin.then(|| Box::new(writer) as Writer),
        stdout: Box::new(out),
        stderr: Some(Box::new(err)),
        resize: mpsc::channel(1).0,
        exit: exit(launched.process),
    })
}

/// The command's end; dropping it kills the command.
fn exit(process: process::Process) -> BoxFuture<'static, i32> {
    let kill = KillOnDrop(process);
    async move { kill.0.ended().await.code }.boxed()
}
