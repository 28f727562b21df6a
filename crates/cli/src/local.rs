//! A proxy's configuration from files: the YAML that users have, translated as the control plane does it. For trying
//! a proxy without a control plane; pods and Services have no meaning here, ServiceEntries name what is called.

use anyhow::{Context as _, Result, bail};
use lateen_api::notice::Notice;
use lateen_api::object::Object;
use lateen_api::{mesh_config, validate, yaml};
use lateen_model::resource::Resource;
use lateen_translate::mesh::{self, Mesh};
use std::path::{Path, PathBuf};

/// Reads every YAML file of `path` (a file or a folder) and returns what it means. Warnings go to standard error.
///
/// # Errors
/// A file cannot be read, or an object cannot be put in force; every such object is named with its file and line.
pub fn resources(path: &Path) -> Result<Vec<Resource>> {
    let mut documents = Vec::new();
    for file in files(path, false)? {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        documents.extend(yaml::parse(&file.display().to_string(), &text));
    }
    let mut notices = Vec::new();
    let config = mesh_settings(&documents, &mut notices);
    let (settings, told) = mesh::settings(&config);
    notices.extend(told);
    let mut resources = settings;
    for document in &documents {
        notices.extend(document.notices.iter().cloned());
        let Some(object) = &document.object else {
            continue;
        };
        let others = documents.iter().filter_map(|d| d.object.as_ref());
        let (meant, mut told) = lateen_translate::among(object, others, &config);
        told.extend(validate::validate(object));
        told.sort();
        told.dedup();
        document.place(&mut told);
        notices.extend(told);
        resources.extend(meant);
    }
    for notice in &notices {
        eprintln!("{notice}");
    }
    let refused = notices.iter().filter(|n| n.is_error()).count();
    if refused > 0 {
        bail!(
            "{}: {refused} errors: nothing is put in force",
            path.display()
        );
    }
    Ok(resources)
}

/// MeshConfig of ConfigMap `istio`, when a document has it.
fn mesh_settings(documents: &[yaml::Document], notices: &mut Vec<Notice>) -> Mesh {
    let mut mesh = Mesh::default();
    for document in documents {
        let Some(Object::Kubernetes(object)) = &document.object else {
            continue;
        };
        if object.kind != "ConfigMap" || object.meta.name != "istio" {
            continue;
        }
        let text = object.value["data"]["mesh"].as_str().unwrap_or_default();
        let (config, told) = mesh_config::parse(text);
        notices.extend(told);
        mesh.config = config.unwrap_or_default();
    }
    mesh
}

/// A file, or the YAML and JSON files of a folder in order of name; of folders within it, too, when `recursive`.
///
/// # Errors
/// The folder cannot be read.
pub fn files(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries =
        std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let file = entry?.path();
        let known = ["yaml", "yml", "json"].map(std::ffi::OsStr::new);
        let is_text = file.extension().is_some_and(|e| known.contains(&e));
        if file.is_dir() && recursive {
            found.extend(files(&file, true)?);
        } else if is_text && !file.is_dir() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lateen_model::resource::Kind;

    #[test]
    fn a_folder_is_a_configuration_and_errors_name_their_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: default}\n\
                     spec:\n  hosts: [api.example.com]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  \
                     resolution: STATIC\n  endpoints: [{address: 127.0.0.1}]\n";
        std::fs::write(folder.path().join("a.yaml"), entry).expect("written");
        let read = resources(folder.path()).expect("in order");
        assert!(read.iter().any(|r| r.key().kind == Kind::Service));
        assert!(read.iter().any(|r| r.key().kind == Kind::MeshSettings));
        std::fs::write(
            folder.path().join("b.yaml"),
            entry.replace("STATIC", "NOWHERE"),
        )
        .expect("written");
        let said = resources(folder.path()).expect_err("refused").to_string();
        assert!(said.contains("1 errors"), "{said}");
    }
}
