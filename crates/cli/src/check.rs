//! `lateen check`: whether a cluster is ready for the mesh, or an installed mesh is in order. Each check says one
//! thing; any failure makes the command fail, so that it can stand in a pipeline or a cron job.

mod certificates;
mod installed;

use crate::args::CheckArgs;
use crate::cluster::Cluster;
use anyhow::Result;
use http::{Request, header};
use serde_json::{Value, json};
use std::process::ExitCode;

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    state: State,
    message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Failure,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "✔",
            Self::Warning => "!",
            Self::Failure => "✘",
        }
    }
}

/// Everything found so far.
#[derive(Debug, Default)]
struct Report(Vec<Finding>);

impl Report {
    fn add(&mut self, check: &'static str, state: State, message: impl Into<String>) {
        let message = message.into();
        self.0.push(Finding {
            check,
            state,
            message,
        });
    }

    /// One finding for many things: a failure that names the first few, else `good`.
    fn add_all(&mut self, check: &'static str, bad: &[String], good: impl Into<String>) {
        const SHOWN: usize = 10;
        if bad.is_empty() {
            return self.add(check, State::Ok, good);
        }
        let mut message = bad
            .iter()
            .take(SHOWN)
            .cloned()
            .collect::<Vec<_>>()
            .join("\n    ");
        if bad.len() > SHOWN {
            message.push_str(&format!("\n    and {} more", bad.len() - SHOWN));
        }
        self.add(check, State::Failure, message);
    }

    fn has_failed(&self) -> bool {
        self.0.iter().any(|found| found.state == State::Failure)
    }

    fn text(&self) -> String {
        let line = |found: &Finding| {
            format!(
                "{} {}: {}\n",
                found.state.mark(),
                found.check,
                found.message
            )
        };
        self.0.iter().map(line).collect()
    }

    fn json(&self) -> Value {
        let one = |found: &Finding| json!({ "check": found.check, "state": found.state.name(), "message": found.message });
        self.0.iter().map(one).collect()
    }
}

/// Runs the checks and prints them; fails when one does.
///
/// # Errors
/// There is no configuration of a cluster.
pub async fn run(args: &CheckArgs) -> Result<ExitCode> {
    let mut report = Report::default();
    match Cluster::connect(args.connection.kubeconfig.as_deref(), None).await {
        Ok(cluster) => {
            let version = cluster.read("/version").await.unwrap_or_default();
            let version = version["gitVersion"]
                .as_str()
                .unwrap_or("of unknown version");
            report.add("API server", State::Ok, format!("it answers ({version})"));
            let installed = match args.pre {
                true => Ok(false),
                false => is_installed(&cluster).await,
            };
            match installed {
                Ok(true) => installed::check(&cluster, args.expiry_threshold, &mut report).await,
                Ok(false) => before(&cluster, &mut report).await,
                Err(error) => report.add(
                    "control plane",
                    State::Failure,
                    format!("whether it is installed cannot be told: {error:#}"),
                ),
            }
        }
        Err(error) => report.add("API server", State::Failure, format!("{error:#}")),
    }
    match args.output.as_deref() {
        Some("json") => println!("{:#}", report.json()),
        _ => print!("{}", report.text()),
    }
    Ok(match report.has_failed() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// Whether there is a control plane. Only the API server's word that there is none counts as none.
async fn is_installed(cluster: &Cluster) -> Result<bool> {
    let path = "/apis/apps/v1/namespaces/istio-system/deployments/istiod";
    found(cluster.read(path).await)
}

fn found(read: Result<Value>) -> Result<bool> {
    match read {
        Ok(_) => Ok(true),
        Err(error) => match error.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            _ => Err(error),
        },
    }
}

/// What an installation needs.
async fn before(cluster: &Cluster, report: &mut Report) {
    report.add("control plane", State::Ok, "not installed yet");
    let mut missing = Vec::new();
    for (group, resource) in [
        ("", "namespaces"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("", "configmaps"),
        ("", "secrets"),
        ("apps", "deployments"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
        (
            "admissionregistration.k8s.io",
            "mutatingwebhookconfigurations",
        ),
        (
            "admissionregistration.k8s.io",
            "validatingwebhookconfigurations",
        ),
    ] {
        if !may_create(cluster, group, resource).await.unwrap_or(false) {
            let dot = if group.is_empty() { "" } else { "." };
            missing.push(format!("you may not create {resource}{dot}{group}"));
        }
    }
    report.add_all(
        "rights",
        &missing,
        "you may create everything that an installation needs",
    );
}

async fn may_create(cluster: &Cluster, group: &str, resource: &str) -> Result<bool> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "group": group, "resource": resource, "verb": "create", "namespace": "istio-system" } },
    });
    let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
        .header(header::CONTENT_TYPE, "application/json")
        .body(serde_json::to_vec(&review)?)?;
    let answer: Value = cluster.client().request(request).await?;
    Ok(answer["status"]["allowed"] == json!(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_404_means_that_nothing_is_installed() {
        let refused = |code: u16| {
            let status =
                json!({ "status": "Failure", "message": "no", "reason": "x", "code": code });
            let status = serde_json::from_value(status).expect("a status");
            found(Err(kube::Error::Api(Box::new(status)).into())).ok()
        };
        assert_eq!(found(Ok(Value::Null)).ok(), Some(true));
        assert_eq!(refused(404), Some(false));
        assert_eq!(refused(403), None);
        assert_eq!(refused(500), None);
        assert!(found(Err(anyhow::anyhow!("no answer"))).is_err());
    }

    #[test]
    fn one_failure_fails_and_long_lists_are_cut() {
        let mut report = Report::default();
        report.add("a", State::Warning, "w");
        report.add_all("b", &[], "fine");
        assert!(!report.has_failed());
        let many: Vec<String> = (0..12).map(|n| format!("bad {n}")).collect();
        report.add_all("c", &many, "fine");
        assert!(report.has_failed());
        let text = report.text();
        assert!(
            text.starts_with("! a: w\n✔ b: fine\n✘ c: bad 0\n"),
            "{text}"
        );
        assert!(text.ends_with("bad 9\n    and 2 more\n"), "{text}");
        assert_eq!(report.json()[0]["state"], "warning");
    }
}
