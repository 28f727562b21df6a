//! `lateen apply|get|delete`: for people without kubectl. Columns are the server's own.

use crate::args::{Connection, GetArgs};
use crate::cluster::{Cluster, documents_at, text};
use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use std::path::PathBuf;

/// Applies every object of `files`. One bad object does not stop the others.
///
/// # Errors
/// At least one object was refused.
pub async fn apply(connection: &Connection, files: &[PathBuf]) -> Result<()> {
    let mut cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    let mut refused = 0;
    for file in files {
        for object in documents_at(file)? {
            match cluster.apply(&object).await {
                Ok(_) => println!("{} applied", label(&object)),
                Err(error) => {
                    refused += 1;
                    eprintln!("{}: {}: {error:#}", file.display(), label(&object));
                }
            }
            if object["kind"] == "CustomResourceDefinition" {
                cluster.refresh().await?;
            }
        }
    }
    if refused > 0 {
        bail!("{refused} objects were refused; the others are in force");
    }
    Ok(())
}

/// Deletes every object of `files`; absent ones are fine.
///
/// # Errors
/// The server refuses.
pub async fn delete(connection: &Connection, files: &[PathBuf]) -> Result<()> {
    let cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    for file in files {
        for object in documents_at(file)? {
            let found = cluster
                .delete(&object)
                .await
                .with_context(|| label(&object))?;
            println!(
                "{} {}",
                label(&object),
                if found { "deleted" } else { "was not there" }
            );
        }
    }
    Ok(())
}

/// Prints objects as a table, YAML or JSON.
///
/// # Errors
/// The kind is not served, or the object is not there.
pub async fn get(args: &GetArgs) -> Result<()> {
    let connection = &args.connection;
    let cluster = Cluster::connect(
        connection.kubeconfig.as_deref(),
        connection.namespace.clone(),
    )
    .await?;
    let kind = cluster.kind(&args.kind)?;
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let mut path = kind.path(namespace, args.name.as_deref());
    if let Some(selector) = &args.selector {
        path.push_str(&format!(
            "?labelSelector={}",
            selector.replace(',', "%2C").replace('=', "%3D")
        ));
    }
    match args.output.as_deref() {
        Some("json") => println!("{:#}", cluster.read(&path).await?),
        Some("yaml") => print!("{}", serde_saphyr::to_string(&cluster.read(&path).await?)?),
        Some(other) if other != "wide" => bail!("-o {other} is not known: use wide, yaml or json"),
        output => print_table(
            &cluster.read_table(&path).await?,
            output.is_some(),
            args.all_namespaces,
        ),
    }
    Ok(())
}

fn print_table(table: &Value, wide: bool, with_namespace: bool) {
    let definitions: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    let shown: Vec<usize> = (0..definitions.len())
        .filter(|&i| wide || definitions[i]["priority"].as_i64().unwrap_or_default() == 0)
        .collect();
    let mut header: Vec<String> = shown
        .iter()
        .map(|&i| text(&definitions[i]["name"]).to_uppercase())
        .collect();
    if with_namespace {
        header.insert(0, "NAMESPACE".to_owned());
    }
    let mut rows = vec![header];
    for row in table["rows"].as_array().into_iter().flatten() {
        let cell = |i: &usize| match &row["cells"][*i] {
            Value::String(text) => text.clone(),
            Value::Null => "<none>".to_owned(),
            other => other.to_string(),
        };
        let mut cells: Vec<String> = shown.iter().map(cell).collect();
        if with_namespace {
            cells.insert(0, text(&row["object"]["metadata"]["namespace"]));
        }
        rows.push(cells);
    }
    if rows.len() == 1 {
        eprintln!("No resources found.");
        return;
    }
    print!("{}", crate::table::aligned(&rows));
}

/// `virtualservice.networking.istio.io/reviews`, as kubectl names objects.
pub fn label(object: &Value) -> String {
    let kind = text(&object["kind"]).to_lowercase();
    let name = text(&object["metadata"]["name"]);
    match text(&object["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}
