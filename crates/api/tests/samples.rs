//! Every YAML that Istio's users have in `samples/` is read: no error, and kinds without effect say so.
//! The samples lie beside the project, in `../shared/istio`.

use lateen_api::object::Object;
use lateen_api::validate::validate;
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
        } else if path
            .extension()
            .is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
        {
            found.push(path);
        }
    }
}

#[test]
fn every_sample_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/istio");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    assert!(paths.len() > 50, "only {} samples found", paths.len());
    let (mut typed, mut kubernetes, mut unsupported) = (0, 0, 0);
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let documents = lateen_api::yaml::parse(&path.display().to_string(), &text);
        assert!(!documents.is_empty(), "{} is empty", path.display());
        for mut document in documents {
            let Some(object) = document.object.take() else {
                panic!("{:#?}", document.notices);
            };
            let mut notices = validate(&object);
            document.place(&mut notices);
            assert!(!notices.iter().any(|n| n.is_error()), "{notices:#?}");
            let said = document.notices.len();
            match object {
                Object::Unsupported(_) => {
                    unsupported += 1;
                    assert_eq!(said, 1, "{:#?}", document.notices);
                }
                Object::Kubernetes(_) => {
                    kubernetes += 1;
                    assert_eq!(said, 0, "{:#?}", document.notices);
                }
                _ => {
                    typed += 1;
                    assert_eq!(said, 0, "{:#?}", document.notices);
                }
            }
        }
    }
    assert!(
        typed > 40 && kubernetes > 100 && unsupported > 10,
        "{typed} {kubernetes} {unsupported}"
    );
}
