//! What exactly to start for a container: program, user, capabilities, mounts. Pure but for looking whether
//! a program's path exists.

use std::path::Path;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use super::environment::{Environment, expand};
use super::handle::as_pairs;
use super::stage::Program;
use crate::images::{Image, SELF};

/// The program of a container.
///
/// # Errors
/// Neither the pod nor the image says what to run.
pub(crate) fn program(
    spec: &PodSpec,
    container: &Container,
    image: &Image,
    environment: &Environment,
    real_root: bool,
) -> Result<Program, String> {
    let argv = argv(container, image, environment)?;
    let own = container.security_context.as_ref();
    let shared = spec.security_context.as_ref();
    let id = |own: Option<i64>, shared: Option<i64>| {
        own.or(shared)
            .filter(|_| real_root)
            .and_then(|id| u32::try_from(id).ok())
    };
    let groups = shared
        .into_iter()
        .flat_map(|s| {
            s.supplemental_groups
                .iter()
                .flatten()
                .copied()
                .chain(s.fs_group)
        })
        .filter(|_| real_root)
        .filter_map(|id| u32::try_from(id).ok())
        .collect();
    Ok(Program {
        argv,
        env: as_pairs(environment),
        directory: container
            .working_dir
            .clone()
            .filter(|d| !d.is_empty())
            .unwrap_or_else(|| "/".into()),
        user: id(
            own.and_then(|s| s.run_as_user),
            shared.and_then(|s| s.run_as_user),
        ),
        group: id(
            own.and_then(|s| s.run_as_group),
            shared.and_then(|s| s.run_as_group),
        ),
        groups,
        tty: container.tty == Some(true),
        no_new_privileges: own.and_then(|s| s.allow_privilege_escalation) == Some(false),
    })
}

/// A pod's `command` replaces the image's, and then the image's `args` do not apply, as with Kubernetes.
fn argv(
    container: &Container,
    image: &Image,
    environment: &Environment,
) -> Result<Vec<String>, String> {
    let given = |words: &Option<Vec<String>>| -> Option<Vec<String>> {
        let words = words.as_ref().filter(|words| !words.is_empty())?;
        Some(words.iter().map(|word| expand(word, environment)).collect())
    };
    let command = given(&container.command);
    let arguments = given(&container.args);
    let mut argv = match (command, arguments) {
        (Some(command), arguments) => [command, arguments.unwrap_or_default()].concat(),
        (None, Some(arguments)) => [image.command.clone(), arguments].concat(),
        (None, None) => [image.command.clone(), image.args.clone()].concat(),
    };
    match argv.first_mut() {
        None => Err("neither the container nor its image names a command".into()),
        Some(first) => {
            if first == SELF {
                *first = "/usr/local/bin/lateen".into();
            }
            Ok(argv)
        }
    }
}

/// Capabilities that a container keeps when the node is the machine's root: those that container runtimes
/// give, and NET_ADMIN, because a pod's network is its own.
const KEPT: [(u32, &str); 15] = [
    (0, "CHOWN"),
    (1, "DAC_OVERRIDE"),
    (3, "FOWNER"),
    (4, "FSETID"),
    (5, "KILL"),
    (6, "SETGID"),
    (7, "SETUID"),
    (8, "SETPCAP"),
    (10, "NET_BIND_SERVICE"),
    (12, "NET_ADMIN"),
    (13, "NET_RAW"),
    (18, "SYS_CHROOT"),
    (27, "MKNOD"),
    (29, "AUDIT_WRITE"),
    (31, "SETFCAP"),
];

/// Capabilities that may be added. What would reach the machine itself (modules, clock, reboot, raw I/O) is
/// not among them.
const ADDABLE: [(u32, &str); 6] = [
    (9, "LINUX_IMMUTABLE"),
    (14, "IPC_LOCK"),
    (15, "IPC_OWNER"),
    (19, "SYS_PTRACE"),
    (21, "SYS_ADMIN"),
    (24, "SYS_RESOURCE"),
];

/// The bounding set of a container; absent where a user namespace bounds it already.
pub(crate) fn capabilities(container: &Container, real_root: bool) -> Option<Vec<u32>> {
    if !real_root {
        return None;
    }
    let context = container.security_context.as_ref();
    let all = || KEPT.iter().chain(&ADDABLE);
    if context.and_then(|c| c.privileged) == Some(true) {
        return Some(all().map(|(number, _)| *number).collect());
    }
    let wanted = context.and_then(|c| c.capabilities.as_ref());
    let names = |list: Option<&Vec<String>>| -> Vec<String> {
        list.into_iter()
            .flatten()
            .map(|name| name.to_uppercase().trim_start_matches("CAP_").to_owned())
            .collect()
    };
    let dropped = names(wanted.and_then(|w| w.drop.as_ref()));
    let added = names(wanted.and_then(|w| w.add.as_ref()));
    let has = |list: &[String], name: &str| list.iter().any(|n| n == name || n == "ALL");
    let kept = KEPT
        .iter()
        .filter(|(_, name)| !has(&dropped, name) || has(&added, name));
    let more = ADDABLE.iter().filter(|(_, name)| has(&added, name));
    Some(kept.chain(more).map(|(number, _)| *number).collect())
}

/// The directory of a program outside of what containers see anyway, such as one in `/root` or `/tmp`.
pub(crate) fn extra_directory(argv: &[String]) -> Option<String> {
    const HIDDEN: [&str; 6] = ["/root/", "/tmp/", "/var/", "/run/", "/mnt/", "/media/"];
    let program = argv.first()?;
    if !HIDDEN.iter().any(|hidden| program.starts_with(hidden)) || !Path::new(program).exists() {
        return None;
    }
    Some(Path::new(program).parent()?.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(json: serde_json::Value) -> Container {
        serde_json::from_value(json).expect("a container")
    }

    fn image() -> Image {
        Image {
            pattern: "x".into(),
            command: vec!["lateen".into(), "sample".into()],
            args: vec!["details".into()],
            env: std::collections::BTreeMap::new(),
        }
    }

    #[test]
    fn command_and_args_replace_the_images() {
        let environment: Environment = [("A".to_owned(), "1".to_owned())].into_iter().collect();
        let check = |json: serde_json::Value, expected: &str| {
            let argv = argv(&container(json), &image(), &environment).expect("a command");
            assert_eq!(argv.join(" "), expected);
        };
        let lateen = "/usr/local/bin/lateen";
        check(
            serde_json::json!({"name": "c"}),
            &format!("{lateen} sample details"),
        );
        check(
            serde_json::json!({"name": "c", "args": ["x$(A)"]}),
            &format!("{lateen} sample x1"),
        );
        check(serde_json::json!({"name": "c", "command": ["sh"]}), "sh");
        check(
            serde_json::json!({"name": "c", "command": ["sh"], "args": ["-c"]}),
            "sh -c",
        );
    }

    #[test]
    fn capabilities_follow_the_security_context() {
        let check = |json: serde_json::Value, number: u32, expected: bool| {
            let kept = capabilities(&container(json), true).expect("bounded");
            assert_eq!(kept.contains(&number), expected, "{number}");
        };
        let drop_all = serde_json::json!({"name": "c", "securityContext": {
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}});
        check(serde_json::json!({"name": "c"}), 12, true);
        check(serde_json::json!({"name": "c"}), 21, false);
        check(drop_all.clone(), 12, true);
        check(drop_all, 0, false);
        let module = serde_json::json!({"name": "c", "securityContext": {"privileged": true}});
        check(module, 16, false);
        assert_eq!(
            capabilities(&container(serde_json::json!({"name": "c"})), false),
            None
        );
    }
}
