//! What the tests of security at the request level share: an application that tells what it saw, and a sidecar
//! before it.

use super::member::at_server;
use super::mesh::origin;
use super::*;
use lateen_base::Str;
use lateen_model::mesh::MeshSettings;
use lateen_model::name::Visibility;
use lateen_model::security::{Action, AuthorizationPolicy, Operation, Rule, Selection};
use lateen_model::service::Protocol;

pub(super) fn strs(values: &[&str]) -> Vec<Str> {
    values.iter().map(|v| Str::from(*v)).collect()
}

/// An application that answers with the head that it got and, when there is one, with the body of declared length.
pub(super) async fn mirror(ip: &str) -> SocketAddr {
    server(ip, |mut stream, _| async move {
        while let Some(head) = read_head(&mut stream).await {
            let lower = head.to_ascii_lowercase();
            let length = lower
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
            stream.read_exact(&mut body).await.unwrap();
            let seen = format!("{head}{}", String::from_utf8_lossy(&body));
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{seen}",
                seen.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The sidecar of an application, and what else it knows.
pub(super) async fn sidecar(app: SocketAddr, resources: Vec<Resource>) -> Bench {
    let (config, mut all) = at_server(Protocol::Http, app);
    all.extend(resources);
    Bench::with(config, all).await
}

/// One request of a client without a sidecar.
pub(super) async fn call(bench: &Bench, request: &str) -> String {
    exchange(&mut bench.inbound("127.1.0.9").await, request).await
}

pub(super) fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        origin: origin("AuthorizationPolicy", name),
        selection: Selection::default(),
        visibility: Visibility::Public,
        action,
        dry_run: false,
        rules,
    }
}

pub(super) fn to(operation: Operation) -> Rule {
    Rule {
        to: vec![operation],
        ..Rule::default()
    }
}

pub(super) fn paths(paths: &[&str]) -> Rule {
    to(Operation {
        paths: strs(paths),
        ..Operation::default()
    })
}

pub(super) fn settings(change: impl FnOnce(&mut MeshSettings)) -> Resource {
    let mut mesh = MeshSettings::default();
    change(&mut mesh);
    Resource::MeshSettings(mesh)
}

/// The status, and the body.
pub(super) fn outcome(answer: &str) -> (&str, &str) {
    let status = answer.get(9..12).unwrap_or("reset");
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body)
}
