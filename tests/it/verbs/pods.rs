//! What pods and their controllers do with what is asked of them.

use crate::mesh::{Mesh, eventually};
use anyhow::{Result, ensure};

#[test]
fn pods_do_as_asked() -> Result<()> {
    let mesh = Mesh::up(&["--no-mesh"])?;
    for yaml in [SETTINGS, TROUBLED, JOBS, SETS] {
        mesh.apply(yaml)?;
    }
    settings(&mesh)?;
    troubles(&mesh)?;
    jobs(&mesh)?;
    sets(&mesh)?;
    logs_and_grace(&mesh)
}

const SETTINGS: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: red}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {word: hush}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {app: reader}}
spec:
  terminationGracePeriodSeconds: 20
  containers:
    - name: main
      image: busybox
      command: [sh, -c, 'trap "echo farewell; exit 0" TERM; echo up; while true; do sleep 0.1; done']
      env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: WORD, valueFrom: {secretKeyRef: {name: hidden, key: word}}}
        - {name: BOTH, value: "$(NAME)-$(WORD)"}
      volumeMounts:
        - {name: settings, mountPath: /settings}
        - {name: all, mountPath: /all}
  volumes:
    - {name: settings, configMap: {name: settings}}
    - name: all
      projected:
        sources:
          - {serviceAccountToken: {path: token, audience: elsewhere, expirationSeconds: 600}}
          - {secret: {name: hidden}}
          - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
"#;

fn settings(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/reader",
        "--timeout=30s",
    ])?;
    let script = "echo $BOTH; cat /settings/color /all/word /all/labels; wc -c < /all/token";
    let shown = mesh.exec("reader", "main", &["sh", "-c", script])?;
    ensure!(
        shown.starts_with("reader-hush\nredhushapp=\"reader\""),
        "{shown}"
    );
    ensure!(
        shown
            .lines()
            .last()
            .is_some_and(|size| size.trim().parse::<u32>().is_ok_and(|n| n > 200)),
        "{shown}"
    );
    mesh.kubectl(&[
        "patch",
        "cm",
        "settings",
        "--type=merge",
        "-p",
        r#"{"data":{"color":"blue"}}"#,
    ])?;
    eventually("a mounted ConfigMap follows", 10, || {
        Ok(mesh.exec("reader", "main", &["cat", "/settings/color"])? == "blue")
    })
}

const TROUBLED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: crashes}
spec:
  containers: [{name: main, image: busybox, command: [sh, -c, 'echo told; exit 3']}]
---
apiVersion: v1
kind: Pod
metadata: {name: sickly}
spec:
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: busybox
      command: [sleep, '1000']
      livenessProbe: {exec: {command: ['false']}, periodSeconds: 1, failureThreshold: 1}
"#;

fn troubles(mesh: &Mesh) -> Result<()> {
    for name in ["crashes", "sickly"] {
        eventually(name, 40, || {
            Ok(mesh
                .kubectl(&["get", "pod", name])?
                .contains("CrashLoopBackOff"))
        })?;
    }
    ensure!(mesh.kubectl(&["logs", "crashes", "--previous"])? == "told\n");
    let described = mesh.kubectl(&["describe", "pod", "crashes"])?;
    ensure!(
        described.contains("Exit Code:    3") && described.contains("Back-off restarting"),
        "{described}"
    );
    let described = mesh.kubectl(&["describe", "pod", "sickly"])?;
    ensure!(described.contains("Liveness probe failed"), "{described}");
    Ok(())
}

const JOBS: &str = r#"
apiVersion: batch/v1
kind: Job
metadata: {name: fails}
spec:
  backoffLimit: 0
  template: {spec: {restartPolicy: Never, containers: [{name: main, image: busybox, command: ['false']}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: counts}
spec:
  completions: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      initContainers:
        - name: beside
          image: busybox
          restartPolicy: Always
          command: [sh, -c, 'trap "exit 0" TERM; while true; do sleep 0.1; done']
      containers: [{name: main, image: busybox, command: [sh, -c, 'echo number $JOB_COMPLETION_INDEX']}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "0 3 * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: busybox, command: [echo, tick]}]}}}}
"#;

fn jobs(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&[
        "wait",
        "--for=condition=Failed",
        "job/fails",
        "--timeout=30s",
    ])?;
    ensure!(
        mesh.kubectl(&["describe", "job", "fails"])?
            .contains("BackoffLimitExceeded")
    );
    mesh.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "job/counts",
        "--timeout=30s",
    ])?;
    let said = mesh.kubectl(&["logs", "-l", "job-name=counts", "-c", "main"])?;
    ensure!(
        said.contains("number 0") && said.contains("number 1"),
        "{said}"
    );
    mesh.kubectl(&["create", "job", "now", "--from=cronjob/nightly"])?;
    mesh.kubectl(&[
        "wait",
        "--for=condition=Complete",
        "job/now",
        "--timeout=30s",
    ])?;
    ensure!(mesh.kubectl(&["logs", "job/now"])? == "tick\n");
    ensure!(mesh.kubectl(&["get", "cronjob"])?.contains("0 3 * * *"));
    Ok(())
}

const SETS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: db.default.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: open}
spec: {type: NodePort, selector: {app: db}, ports: [{port: 80, targetPort: 8080, nodePort: 30123}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
        - name: main
          image: lateen/httpbin
          readinessProbe: {httpGet: {path: /get, port: 8080}, periodSeconds: 1}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template: {metadata: {labels: {app: everywhere}}, spec: {containers: [{name: main, image: pause}]}}
"#;

fn sets(mesh: &Mesh) -> Result<()> {
    for set in ["sts/db", "ds/everywhere"] {
        mesh.kubectl(&["rollout", "status", set, "--timeout=60s"])?;
        mesh.kubectl(&["rollout", "restart", set])?;
        mesh.kubectl(&["rollout", "status", set, "--timeout=60s"])?;
    }
    let script = "getent ahosts db | sort -u | grep -c STREAM; getent hosts db-1.db | grep -c db-1.db; hostname -f";
    let names = mesh.exec("db-0", "main", &["sh", "-c", script])?;
    ensure!(
        names == "2\n1\ndb-0.db.default.svc.cluster.local\n",
        "{names}"
    );
    for url in [
        "http://alias:8080/get",
        "http://open/get",
        "http://10.244.0.1:30123/get",
    ] {
        let code = [
            "curl",
            "-sS",
            "-m",
            "3",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            url,
        ];
        ensure!(mesh.exec("db-0", "main", &code)? == "200", "{url}");
    }
    Ok(())
}

fn logs_and_grace(mesh: &Mesh) -> Result<()> {
    let follow = mesh
        .kubectl_command(&["logs", "-f", "reader"])
        .stdout(std::process::Stdio::piped())
        .spawn()?;
    mesh.kubectl(&["delete", "pod", "reader"])?;
    let said = crate::mesh::text(&follow.wait_with_output()?.stdout);
    ensure!(
        said == "up\nfarewell\n",
        "the last words of a container that ends are followed: {said:?}"
    );
    Ok(())
}
