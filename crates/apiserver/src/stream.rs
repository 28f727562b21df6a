//! Streaming subresources of pods: `log`, `exec`, `attach` and `portforward`, as kubectl and kube-rs speak them.
//!
//! ```text
//! log          GET, chunked plain text
//! exec, attach WebSocket v5/v4.channel.k8s.io, or SPDY/3.1 with v4.channel.k8s.io
//! portforward  WebSocket SPDY/3.1+portforward.k8s.io (kubectl), WebSocket v4.channel.k8s.io (kube-rs), or SPDY/3.1
//! ```
//! The handlers answer failures as `Status` before anything is upgraded; the server must serve HTTP/1 connections
//! with upgrades. What a pod is and who may reach it was decided before; [`crate::pods::PodAccess`] does the reaching.

mod exec;
mod forward;
mod log;
mod spdy;
mod upgrade;

pub use exec::{attach, exec};
pub use forward::port_forward;
pub use log::logs;

use crate::error::ApiError;
use crate::pods::{PodError, Target};
use serde_json::Value;

/// Bytes read from a pod at once.
const CHUNK: usize = 32 * 1024;

/// The container that a request means. Kubernetes' rule, and kubectl's annotation for requests that name none.
fn target(pod: &Value, container: Option<&str>) -> Result<Target, ApiError> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = text(&pod["metadata"]["name"]);
    let names = |key: &str| -> Vec<String> {
        pod["spec"][key]
            .as_array()
            .into_iter()
            .flatten()
            .map(|container| text(&container["name"]))
            .collect()
    };
    let (main, init, ephemeral) = (
        names("containers"),
        names("initContainers"),
        names("ephemeralContainers"),
    );
    let preferred =
        pod["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"].as_str();
    let chosen = match container.or(preferred) {
        Some(wanted)
            if [&main, &init, &ephemeral]
                .into_iter()
                .any(|all| all.iter().any(|one| one == wanted)) =>
        {
            wanted.to_owned()
        }
        Some(wanted) => {
            return Err(ApiError::bad_request(format!(
                "container {wanted} is not valid for pod {name}"
            )));
        }
        None => match main.as_slice() {
            [only] => only.clone(),
            _ => {
                let mut why = format!(
                    "a container name must be specified for pod {name}, choose one of: [{}]",
                    main.join(" ")
                );
                if !init.is_empty() {
                    why.push_str(&format!(
                        " or one of the init containers: [{}]",
                        init.join(" ")
                    ));
                }
                return Err(ApiError::bad_request(why));
            }
        },
    };
    Ok(Target {
        namespace: text(&pod["metadata"]["namespace"]),
        pod: name,
        container: Some(chosen),
    })
}

impl From<PodError> for ApiError {
    fn from(error: PodError) -> Self {
        let text = error.to_string();
        match error {
            PodError::NotFound(_) => Self::new(404, "NotFound", text),
            PodError::Invalid(_) => Self::bad_request(text),
            PodError::Failed(_) => Self::internal(text),
        }
    }
}

#[cfg(test)]
mod tests;
