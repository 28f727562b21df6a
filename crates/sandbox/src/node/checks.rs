//! What this machine must offer, checked before anything is started, each lack in one sentence with a cure.

use std::fs;

use super::UpError;

/// Checks the machine.
pub(super) fn machine() -> Result<(), UpError> {
    if !fs::exists("/proc/self/ns/net").unwrap_or(false) {
        return Err(UpError::Unsupported(
            "the sandbox needs Linux with network namespaces and a mounted /proc: run it on a Linux machine or in a Linux VM".into(),
        ));
    }
    if !nix::unistd::geteuid().is_root() {
        user_namespaces()?;
    }
    Ok(())
}

fn user_namespaces() -> Result<(), UpError> {
    let setting = |path: &str| {
        fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let refuse = |cure: &str| {
        Err(UpError::Unsupported(format!(
            "user namespaces are switched off for ordinary users on this machine: run as root, or once `{cure}`"
        )))
    };
    if !fs::exists("/proc/self/ns/user").unwrap_or(false) {
        return Err(UpError::Unsupported(
            "this kernel has no user namespaces: run as root".into(),
        ));
    }
    if setting("/proc/sys/kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return refuse("sudo sysctl -w kernel.unprivileged_userns_clone=1");
    }
    if setting("/proc/sys/user/max_user_namespaces").as_deref() == Some("0") {
        return refuse("sudo sysctl -w user.max_user_namespaces=15000");
    }
    if setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return refuse("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0");
    }
    Ok(())
}
