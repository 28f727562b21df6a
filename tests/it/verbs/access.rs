//! Who may do what, and kinds of one's own.

use crate::mesh::Mesh;
use anyhow::{Result, ensure};

#[test]
fn accounts_and_definitions() -> Result<()> {
    let mesh = Mesh::up(&["--no-mesh"])?;
    roles(&mesh)?;
    definitions(&mesh)
}

fn roles(mesh: &Mesh) -> Result<()> {
    mesh.kubectl(&["create", "cm", "facts", "--from-literal=a=1"])?;
    mesh.kubectl(&[
        "create",
        "secret",
        "generic",
        "hidden",
        "--from-literal=a=1",
    ])?;
    mesh.kubectl(&["create", "sa", "robot"])?;
    mesh.kubectl(&[
        "create",
        "role",
        "reader",
        "--verb=get",
        "--resource=configmaps",
    ])?;
    mesh.kubectl(&[
        "create",
        "rolebinding",
        "readers",
        "--role=reader",
        "--serviceaccount=default:robot",
    ])?;
    let token = mesh.kubectl(&["create", "token", "robot", "--duration=10m"])?;
    let server = format!("--server=https://127.0.0.1:{}", mesh.api_port);
    let token = format!("--token={}", token.trim());
    let robot = [
        "--kubeconfig=/dev/null",
        "--insecure-skip-tls-verify",
        server.as_str(),
        token.as_str(),
    ];
    let typed = |more: &[&'static str]| [robot.as_slice(), more].concat();
    ensure!(
        mesh.kubectl(&typed(&["get", "cm", "facts"]))?
            .contains("facts")
    );
    ensure!(
        mesh.kubectl(&typed(&["auth", "whoami"]))?
            .contains("system:serviceaccount:default:robot")
    );
    for (refused, words) in [
        (
            ["get", "cm"].as_slice(),
            "cannot list resource \"configmaps\"",
        ),
        (
            &["get", "secret", "hidden"],
            "cannot get resource \"secrets\"",
        ),
        (
            &["delete", "cm", "facts"],
            "cannot delete resource \"configmaps\"",
        ),
    ] {
        let said = mesh.kubectl_fails(&typed(refused))?;
        ensure!(
            said.contains("Forbidden") && said.contains(words),
            "{refused:?}: {said}"
        );
    }
    let account = "--as=system:serviceaccount:default:robot";
    ensure!(
        mesh.kubectl(&["auth", "can-i", "get", "cm", account])?
            .trim()
            == "yes"
    );
    mesh.kubectl_fails(&["auth", "can-i", "get", "secrets", account])?;
    let stranger = [&robot[..3], &["--token=made-up", "get", "cm", "facts"]].concat();
    ensure!(mesh.kubectl_fails(&stranger)?.contains("Unauthorized"));
    Ok(())
}

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt]}
  versions:
    - name: v1
      served: true
      storage: true
      subresources: {status: {}, scale: {specReplicasPath: .spec.masts, statusReplicasPath: .status.masts}}
      additionalPrinterColumns: [{name: Length, type: integer, jsonPath: .spec.length}]
      schema:
        openAPIV3Schema:
          type: object
          properties:
            spec:
              type: object
              required: [length]
              x-kubernetes-validations:
                - {rule: "self.masts * 5 <= self.length", message: too many masts}
                - {rule: "self.length >= oldSelf.length", message: boats do not shrink}
              properties:
                length: {type: integer, minimum: 1, description: From bow to stern.}
                masts: {type: integer, default: 1}
            status: {type: object, x-kubernetes-preserve-unknown-fields: true}
"#;

fn definitions(mesh: &Mesh) -> Result<()> {
    mesh.apply(DEFINITION)?;
    mesh.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/boats.example.com",
        "--timeout=10s",
    ])?;
    let boat = |spec: &str| {
        format!("apiVersion: example.com/v1\nkind: Boat\nmetadata: {{name: b}}\nspec: {spec}\n")
    };
    mesh.apply(&boat("{length: 10}"))?;
    let shown = mesh.kubectl(&["get", "bt"])?;
    ensure!(shown.contains("LENGTH") && shown.contains("10"), "{shown}");
    for (spec, words) in [
        ("{length: 10, masts: 3}", "too many masts"),
        ("{length: 9}", "boats do not shrink"),
        ("{length: long}", "must be of type integer"),
        ("{length: 12, sails: 2}", "unknown field \"spec.sails\""),
        ("{}", "spec.length: Required value"),
    ] {
        let said = match mesh.apply(&boat(spec)) {
            Ok(said) => anyhow::bail!("{spec} was taken: {said}"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(said.contains(words), "{spec}: {said}");
    }
    mesh.kubectl(&["scale", "boat", "b", "--replicas=2"])?;
    let patch = r#"{"spec":{"length":99},"status":{"afloat":true}}"#;
    mesh.kubectl(&[
        "patch",
        "boat",
        "b",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ])?;
    mesh.kubectl(&[
        "patch",
        "boat",
        "b",
        "--type=merge",
        "-p",
        r#"{"status":{"afloat":false}}"#,
    ])?;
    let boat = mesh.object(&["boat", "b"])?;
    ensure!(
        boat["spec"]["length"] == 10 && boat["spec"]["masts"] == 2,
        "{boat}"
    );
    ensure!(
        boat["status"]["afloat"] == true,
        "status has a door of its own: {boat}"
    );
    let strategic = mesh.kubectl_fails(&["patch", "boat", "b", "--type=strategic", "-p", "{}"])?;
    ensure!(strategic.contains("strategic-merge-patch"), "{strategic}");
    ensure!(
        mesh.kubectl(&["explain", "boat.spec"])?
            .contains("From bow to stern.")
    );
    mesh.kubectl(&["delete", "crd", "boats.example.com"])?;
    mesh.kubectl_fails(&["get", "boats"])?;
    Ok(())
}
