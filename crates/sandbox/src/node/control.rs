//! The control socket: how the host asks the node how it is. One question, one JSON answer.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::home::{Home, Record};
use super::{Publish, UpError};
use crate::pod::Runner;

/// How a sandbox is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The process that holds it.
    pub pid: i32,
    /// Start, in seconds since 1970.
    pub started: i64,
    /// The API server's address on the host.
    pub api: SocketAddr,
    /// Published services.
    pub published: Vec<Publish>,
    /// The kubeconfig file.
    pub kubeconfig: std::path::PathBuf,
    /// The node itself and every running container.
    pub components: Vec<Component>,
}

/// One process (or container) and its memory.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Component {
    /// Namespace; empty for the node itself.
    pub namespace: String,
    /// Pod; `node` for the node itself.
    pub pod: String,
    /// Container; empty for the node itself.
    pub container: String,
    /// Resident memory in bytes, of all its processes.
    pub resident: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    components: Vec<Component>,
}

/// Asks a running node.
pub(super) fn ask(home: &Home, record: &Record) -> Result<Status, UpError> {
    let fail = |e: std::io::Error| {
        UpError::Node(format!(
            "the sandbox (pid {}) does not answer: {e}; see {}",
            record.pid,
            home.log().display()
        ))
    };
    let mut stream = UnixStream::connect(home.control()).map_err(fail)?;
    stream
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(fail)?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(fail)?;
    let answer: Answer = serde_json::from_str(&text).map_err(|e| fail(e.into()))?;
    Ok(Status {
        pid: record.pid,
        started: record.started,
        api: record.api,
        published: record.published.clone(),
        kubeconfig: home.kubeconfig(),
        components: answer.components,
    })
}

/// Answers until the node ends.
pub(super) async fn serve(home: Home, runner: Arc<Runner>) {
    let path = home.control();
    let _ = std::fs::remove_file(&path);
    let listener = match tokio::net::UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "no control socket: `sandbox status` will not work");
            return;
        }
    };
    while let Ok((mut stream, _)) = listener.accept().await {
        let components = components(&runner);
        if let Ok(text) = serde_json::to_vec(&Answer { components }) {
            let _ = stream.write_all(&text).await;
        }
    }
}

fn components(runner: &Runner) -> Vec<Component> {
    let memory = memory_by_pid_namespace();
    let own = pid_namespace("self");
    let mut all = vec![Component {
        namespace: String::new(),
        pod: "node".into(),
        container: String::new(),
        resident: own
            .and_then(|ns| memory.get(&ns).copied())
            .unwrap_or_default(),
    }];
    for container in runner.running_containers() {
        let resident = pid_namespace(&container.pid.to_string())
            .and_then(|ns| memory.get(&ns).copied())
            .unwrap_or_default();
        all.push(Component {
            namespace: container.namespace,
            pod: container.pod,
            container: container.container,
            resident,
        });
    }
    all
}

fn pid_namespace(pid: &str) -> Option<std::path::PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Resident bytes summed over the processes of each pid namespace, which is to say of each container.
fn memory_by_pid_namespace() -> BTreeMap<std::path::PathBuf, u64> {
    let mut sums = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return sums;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        else {
            continue;
        };
        if let (Some(namespace), Some(bytes)) = (pid_namespace(pid), resident(pid)) {
            *sums.entry(namespace).or_default() += bytes;
        }
    }
    sums
}

fn resident(pid: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}
