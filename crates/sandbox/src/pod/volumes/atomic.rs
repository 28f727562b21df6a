//! Writing a volume's files so that readers see either all old or all new ones:
//! `key -> ..data/key`, `..data -> ..<version>`, and only `..data` is ever switched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Relative path → bytes and mode.
pub(super) type Files = BTreeMap<String, (Vec<u8>, u32)>;

/// Writes all files of a volume, replacing the earlier ones. `group` owns them where permitted.
pub(super) fn write(directory: &Path, files: &Files, group: Option<u32>) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let version = format!("..{}", uuid::Uuid::new_v4().simple());
    let fresh = directory.join(&version);
    fs::create_dir(&fresh)?;
    for (path, (bytes, mode)) in files {
        let path = fresh.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&path, bytes)?;
        let mut mode = *mode;
        if let Some(group) = group {
            // In a user namespace there is only one group; readers are then the owner anyway.
            let _ = std::os::unix::fs::chown(&path, None, Some(group));
            mode |= 0o040;
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    let current = directory.join("..data");
    let previous = fs::read_link(&current).ok();
    let draft = directory.join("..data_new");
    let _ = fs::remove_file(&draft);
    symlink(&version, &draft)?;
    fs::rename(&draft, &current)?;
    link_names(directory, files)?;
    if let Some(previous) = previous {
        let _ = fs::remove_dir_all(directory.join(previous));
    }
    Ok(())
}

/// Makes the visible names, and removes those whose file is gone.
fn link_names(directory: &Path, files: &Files) -> io::Result<()> {
    let wanted: BTreeSet<&str> = files
        .keys()
        .filter_map(|path| path.split('/').next())
        .collect();
    for entry in fs::read_dir(directory)?.flatten() {
        let name = entry.file_name();
        let gone = name
            .to_str()
            .is_some_and(|name| !name.starts_with("..") && !wanted.contains(name));
        if gone {
            fs::remove_file(entry.path())?;
        }
    }
    for name in wanted {
        let link = directory.join(name);
        if link.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(name), link)?;
        }
    }
    Ok(())
}
