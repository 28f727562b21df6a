//! The cache file.

use super::{key, table};
use crate::cache::{Cache, Raw};
use crate::codec::encode;
use lateen_model::resource::Resource;

fn raw(resource: &Resource, version: &str) -> Option<Raw> {
    Some(Raw {
        version: version.to_owned(),
        bytes: encode(resource).to_vec(),
    })
}

#[test]
fn changes_are_merged_into_the_file() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("below/cache");
    let open = |node: &str| Cache::new(path.clone(), node.to_owned());
    assert_eq!(open("n").load().expect("no file").resources, []);
    let (x, y, z) = (
        table("a/x", "1", None),
        table("a/y", "1", None),
        table("a/z", "1", None),
    );
    let mut cache = open("n");
    cache.note(key("a/x"), raw(&x, "v1"));
    cache.note(key("a/y"), raw(&y, "v1"));
    cache.flush().expect("written");
    assert!(!cache.is_dirty());
    let mut cache = open("n");
    cache.note(key("a/x"), None);
    cache.note(key("a/z"), raw(&z, "v2"));
    cache.flush().expect("written");
    let loaded = open("n").load().expect("readable").resources;
    assert_eq!(loaded, [(y, "v1".to_owned()), (z, "v2".to_owned())]);
    let error = open("other").load().expect_err("not ours");
    assert!(error.to_string().contains("it is of node \"n\""), "{error}");
}

#[test]
fn a_damaged_file_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("cache");
    std::fs::write(&path, [0xff; 100]).expect("written");
    let mut cache = Cache::new(path, "n".to_owned());
    assert!(cache.load().is_err());
    let x = table("a/x", "1", None);
    cache.note(key("a/x"), raw(&x, "v1"));
    cache.flush().expect("written");
    assert_eq!(
        cache.load().expect("readable").resources,
        [(x, "v1".to_owned())]
    );
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_cache_only() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let mut cache = Cache::new(file.join("cache"), "n".to_owned());
    cache.note(key("a/x"), raw(&table("a/x", "1", None), "v1"));
    let error = cache.flush().expect_err("a file is no folder").to_string();
    assert!(
        error.contains("goes on without its configuration cache"),
        "{error}"
    );
    assert!(cache.is_dirty(), "kept for the next time");
}

#[test]
fn nobody_else_reads_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("cache");
    // What an earlier attempt left for everybody to read.
    let beside = path.with_extension("new");
    std::fs::write(&beside, "old").expect("written");
    let mut cache = Cache::new(path.clone(), "n".to_owned());
    for name in ["a/x", "a/y"] {
        cache.note(key(name), raw(&table(name, "1", None), "v1"));
        cache.flush().expect("written");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(!beside.exists());
}
