//! The seeds of user pain: Jobs that never end, protocols where the server speaks first, init containers without a
//! network, pushes for nothing, and one bad object that takes others down.

use crate::mesh::{Mesh, eventually};
use anyhow::{Context as _, Result, ensure};

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: brief}
spec:
  template:
    spec:
      restartPolicy: Never
      initContainers:
        - name: reach
          image: curlimages/curl
          command: [sh, -c, 'curl -sS -m 5 --fail http://httpbin:8000/get']
      containers:
        - name: main
          image: curlimages/curl
          command: [sh, -c, 'curl -sS -m 5 --fail http://httpbin:8000/get && date +%s.%N']
";

const SERVER_FIRST: &str = "
apiVersion: v1
kind: Service
metadata: {name: speaks-first}
spec:
  selector: {app: speaks-first}
  ports: [{port: 4406}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: speaks-first}
spec:
  selector: {matchLabels: {app: speaks-first}}
  template:
    metadata: {labels: {app: speaks-first}}
    spec:
      containers:
        - name: echo
          image: lateen/tcp-echo
          args: ['--ports', '4406', '--greeting', 'welcome']
          ports: [{containerPort: 4406}]
          readinessProbe: {tcpSocket: {port: 4406}, periodSeconds: 1}
";

#[test]
fn the_pains_of_other_meshes_do_not_hurt() -> Result<()> {
    let mesh = Mesh::up(&[])?;
    mesh.kubectl(&["label", "namespace", "default", "istio-injection=enabled"])?;
    mesh.kubectl(&[
        "apply",
        "-f",
        "samples/httpbin/httpbin.yaml",
        "-f",
        "samples/sleep/sleep.yaml",
    ])?;
    mesh.apply(SERVER_FIRST)?;
    for name in ["httpbin", "sleep", "speaks-first"] {
        mesh.kubectl(&[
            "rollout",
            "status",
            "--timeout=60s",
            &format!("deploy/{name}"),
        ])?;
    }
    a_job_completes(&mesh)?;
    the_server_may_speak_first(&mesh)?;
    a_metadata_edit_pushes_nothing(&mesh)?;
    one_invalid_object_leaves_the_others(&mesh)
}

fn a_job_completes(mesh: &Mesh) -> Result<()> {
    mesh.apply(JOB)?;
    mesh.kubectl(&[
        "wait",
        "--for=condition=complete",
        "job/brief",
        "--timeout=30s",
    ])?;
    let finished = |list: &str, name: &str| -> Result<Option<String>> {
        let pods = mesh.object(&["pods", "-l", "job-name=brief"])?;
        let statuses = pods["items"][0]["status"][list].clone();
        let mut all = statuses.as_array().into_iter().flatten();
        let status = all.find(|s| s["name"] == name).context("container")?;
        let time = status["state"]["terminated"]["finishedAt"].as_str();
        Ok(time.map(str::to_owned))
    };
    let own = finished("containerStatuses", "main")?.context("main has ended")?;
    // The job does not wait for the sidecar, which ends right behind.
    eventually("the sidecar ends", 10, || {
        Ok(finished("initContainerStatuses", "istio-proxy")?.is_some())
    })?;
    let sidecar = finished("initContainerStatuses", "istio-proxy")?.context("it has ended")?;
    let job = mesh.object(&["job", "brief"])?;
    let done = job["status"]["completionTime"]
        .as_str()
        .context("completionTime")?;
    println!("job: main ended {own}, sidecar {sidecar}, job complete {done}");
    ensure!(
        seconds(done)? - seconds(&own)? <= 2,
        "complete more than 2 s after its own exit: {own} → {done}"
    );
    ensure!(
        seconds(&sidecar)? - seconds(&own)? <= 2,
        "the sidecar outlives the job by more than 2 s: {own} → {sidecar}"
    );
    Ok(())
}

/// Seconds of the day in an RFC 3339 time.
fn seconds(time: &str) -> Result<i64> {
    let clock = time.get(11..19).context("RFC 3339 time")?;
    let parts: Vec<i64> = clock.split(':').map(str::parse).collect::<Result<_, _>>()?;
    Ok(parts[0] * 3600 + parts[1] * 60 + parts[2])
}

fn the_server_may_speak_first(mesh: &Mesh) -> Result<()> {
    let connect = "exec 3<>/dev/tcp/speaks-first/4406; read -r -t 5 line <&3";
    let timed = format!(
        "s=$(date +%s%N); {connect}; e=$(date +%s%N); echo \"$line $(( (e - s) / 1000000 ))\""
    );
    let out = mesh.exec("deploy/sleep", "sleep", &["bash", "-c", &timed])?;
    println!("server-first: greeting and milliseconds: {out}");
    let (greeting, took) = out
        .trim()
        .rsplit_once(' ')
        .context("a greeting and a time")?;
    ensure!(greeting == "welcome", "the greeting arrives: {out:?}");
    // Detection has no timers; the shortest that other meshes wait here is a second.
    ensure!(
        took.parse::<u64>()? < 1000,
        "connected with a stall: {took} ms"
    );
    Ok(())
}

fn pushes(mesh: &Mesh) -> Result<f64> {
    let metrics = mesh.kubectl(&[
        "get",
        "--raw",
        "/api/v1/namespaces/istio-system/services/istiod:15014/proxy/metrics",
    ]);
    let metrics = match metrics {
        Ok(text) => text,
        Err(_) => mesh.exec(
            "deploy/sleep",
            "sleep",
            &["curl", "-sS", "http://istiod.istio-system:15014/metrics"],
        )?,
    };
    let sum = metrics
        .lines()
        .filter(|line| line.starts_with("pilot_xds_pushes"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    Ok(sum)
}

const ROUTE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: httpbin}
spec:
  hosts: [httpbin]
  http: [{route: [{destination: {host: httpbin, port: {number: 8000}}}], headers: {response: {set: {x-route: set}}}}]
";

fn a_metadata_edit_pushes_nothing(mesh: &Mesh) -> Result<()> {
    mesh.apply(ROUTE)?;
    eventually("the route is in force", 5, || {
        let out = mesh.exec(
            "deploy/sleep",
            "sleep",
            &["curl", "-sSi", "http://httpbin:8000/get"],
        )?;
        Ok(out.to_lowercase().contains("x-route: set"))
    })?;
    let before = pushes(mesh)?;
    ensure!(before > 0.0, "the push counter counts");
    mesh.kubectl(&["annotate", "virtualservice/httpbin", "owner=somebody"])?;
    mesh.kubectl(&["label", "virtualservice/httpbin", "team=shop"])?;
    // A real change behind it proves that the edits were seen: changes are handled in order.
    mesh.apply(&ROUTE.replace("x-route: set", "x-route: again"))?;
    eventually("the next change is in force", 5, || {
        let out = mesh.exec(
            "deploy/sleep",
            "sleep",
            &["curl", "-sSi", "http://httpbin:8000/get"],
        )?;
        Ok(out.to_lowercase().contains("x-route: again"))
    })?;
    let proxies = mesh.object(&["pods", "-A", "-l", "security.istio.io/tlsMode=istio"])?;
    let proxies = proxies["items"]
        .as_array()
        .map(Vec::len)
        .unwrap_or_default() as f64
        + 1.0;
    let after = pushes(mesh)?;
    println!(
        "pushes before {before}, after two metadata edits and one change {after}, proxies {proxies}"
    );
    ensure!(
        after - before <= proxies,
        "one change, at most one push to each proxy: {before} → {after}"
    );
    Ok(())
}

fn one_invalid_object_leaves_the_others(mesh: &Mesh) -> Result<()> {
    let bad = ROUTE
        .replace("name: httpbin", "name: broken")
        .replace("hosts: [httpbin]", "hosts: [other]");
    let bad = bad.replace("[{route:", "[{match: [{uri: {regex: '('}}], route:");
    let refused = mesh
        .apply(&bad)
        .err()
        .map(|e| format!("{e:#}"))
        .unwrap_or_default();
    ensure!(
        refused.contains("broken") && refused.contains("regex"),
        "refused at admission: {refused}"
    );
    // Past the webhook, it still harms nobody and says what is wrong with it.
    mesh.kubectl(&[
        "delete",
        "validatingwebhookconfiguration",
        "istio-validator-istio-system",
    ])?;
    mesh.apply(&bad)?;
    eventually("the object's status tells what is wrong", 10, || {
        let status = mesh.object(&["virtualservice", "broken"])?["status"].to_string();
        Ok(status.contains("regex"))
    })?;
    let out = mesh.exec(
        "deploy/sleep",
        "sleep",
        &["curl", "-sSi", "http://httpbin:8000/get"],
    )?;
    ensure!(
        out.contains("200") && out.to_lowercase().contains("x-route: again"),
        "{out}"
    );
    Ok(())
}
