//! Every object of Istio's samples is translated: nothing is refused, every sample means something.
//! The samples lie beside the project, in `../shared/istio`.

use lateen_api::notice::Notice;
use lateen_api::object::Object;
use lateen_translate::mesh::Mesh;
use lateen_translate::{Translated, alone, service};
use std::fs;
use std::path::{Path, PathBuf};

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| {
        panic!(
            "{}: {e}: the samples belong beside the project, in ../shared/istio",
            dir.display()
        )
    });
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

/// Translates one object; absent for kinds that mean nothing by themselves.
fn translate(object: &Object, mesh: &Mesh) -> Option<Translated> {
    match object {
        Object::Kubernetes(object) if object.kind == "Service" => {
            let service = serde_json::from_value(object.value.clone()).expect("a Service");
            let service = &service;
            Some(service::service(service::Inputs { service, mesh }))
        }
        Object::Kubernetes(_) | Object::Unsupported(_) => None,
        object => Some(alone(object, mesh)),
    }
}

#[test]
fn every_sample_means_something() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio");
    let mesh = Mesh::default();
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let mut translated = 0;
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        for document in lateen_api::yaml::parse(&path.display().to_string(), &text) {
            let object = document.object.as_ref().expect("read");
            let Some((resources, mut notices)) = translate(object, &mesh) else {
                continue;
            };
            document.place(&mut notices);
            assert!(!notices.iter().any(Notice::is_error), "{notices:#?}");
            assert!(
                !resources.is_empty(),
                "{} in {}",
                object.subject(),
                path.display()
            );
            translated += 1;
        }
    }
    assert!(translated > 90, "only {translated} objects");
}
