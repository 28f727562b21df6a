//! Image names → local programs. There are no container images here: a table says which program of this
//! machine stands for an image, and users extend it with a file. It does not look at the network.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

/// The word in a table entry that stands for the running `lateen` executable.
pub const SELF: &str = "lateen";

/// Where Istio's own manifests take its images from, besides `istio/`.
const ISTIO_OWNERS: [&str; 4] = ["release", "testing", "istio-release", "istio-testing"];

/// What runs for an image: the counterparts of an image's ENTRYPOINT, CMD and ENV.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Name without registry and tag, or with them where the name alone is not enough; `*` stands for any text.
    #[serde(rename = "image")]
    pub pattern: String,
    /// Program and first arguments. A pod's `command` replaces it.
    #[serde(default)]
    pub command: Vec<String>,
    /// Further arguments. A pod's `args` replaces them.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment; a pod's own variables win.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The table: built-in entries, and before them those of the user's file.
#[derive(Debug, Clone)]
pub struct Images {
    entries: Vec<Image>,
}

/// Why a user's image file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// It cannot be read.
    #[error("cannot read the image table {path}: {reason}; check the path given with --images")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// It is not a list of entries.
    #[error(
        "the image table {path} is not a YAML list of {{image, command, args, env}}: {message}"
    )]
    Parse {
        /// The file.
        path: String,
        /// Where and what.
        message: String,
    },
}

impl Images {
    /// The built-in table alone.
    pub fn built_in() -> Self {
        Self {
            entries: built_in(),
        }
    }

    /// The built-in table with the entries of a YAML file before it.
    ///
    /// # Errors
    /// The file cannot be read or is not a list of entries.
    pub fn with_file(path: &Path) -> Result<Self, ImagesError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| ImagesError::Read {
            path: shown.clone(),
            reason: error.to_string(),
        })?;
        let mut entries = parse(&text).map_err(|message| ImagesError::Parse {
            path: shown,
            message,
        })?;
        entries.extend(built_in());
        Ok(Self { entries })
    }

    /// The program for an image as a pod names it; absent when the table has none.
    pub fn find(&self, image: &str) -> Option<&Image> {
        let names = candidates(image);
        self.entries
            .iter()
            .find(|entry| names.iter().any(|name| matches(&entry.pattern, name)))
    }
}

fn parse(text: &str) -> Result<Vec<Image>, String> {
    let entries: Vec<Image> = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    match entries.iter().find(|e| e.pattern.is_empty()) {
        Some(_) => Err("an entry has an empty `image`; name the image it is for".into()),
        None => Ok(entries),
    }
}

/// The names an image goes by: as written, without the registry's host, without `library/`, each with
/// its tag and then without; so `docker.io/library/busybox:1.36` is also `busybox`.
fn candidates(image: &str) -> Vec<String> {
    let tagged = image.split('@').next().unwrap_or(image);
    let bare = match tagged.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => tagged,
    };
    let mut names = vec![image.to_owned()];
    for name in [tagged, bare] {
        let local = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => rest,
            _ => name,
        };
        names.push(name.to_owned());
        names.push(local.to_owned());
        // Mirrors put a path before the name (`registry.example/team/istio/proxyv2`): the last two parts decide.
        let mut parts = local.rsplitn(3, '/');
        if let (Some(last), Some(owner), Some(_)) = (parts.next(), parts.next(), parts.next()) {
            names.push(format!("{owner}/{last}"));
        }
        if let Some(official) = local.strip_prefix("library/") {
            names.push(official.to_owned());
        }
        // Istio publishes the same images under several owners: `registry.istio.io/release/pilot`.
        if let Some((_, last)) = local
            .split_once('/')
            .filter(|(owner, _)| ISTIO_OWNERS.contains(owner))
        {
            names.push(format!("istio/{last}"));
        }
    }
    names
}

/// Whether a pattern with `*` matches the whole text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
        last = Some(part);
    }
    match last {
        None => rest.is_empty(),
        Some(tail) => tail.is_empty() || text.ends_with(tail),
    }
}

fn built_in() -> Vec<Image> {
    let entry = |pattern: &str, command: &[&str], args: &[&str]| Image {
        pattern: pattern.to_owned(),
        command: command.iter().map(|s| (*s).to_owned()).collect(),
        args: args.iter().map(|s| (*s).to_owned()).collect(),
        env: BTreeMap::new(),
    };
    let mut all = vec![
        entry("lateen/pilot", &[SELF, "control"], &[]),
        entry("istio/pilot", &[SELF, "control"], &[]),
        entry("lateen/ratelimit", &[SELF, "ratelimit"], &[]),
        entry("lateen/proxyv2", &[SELF], &[]),
        entry("istio/proxyv2", &[SELF], &[]),
        entry("curlimages/curl", &["curl"], &[]),
        entry("curl", &["curl"], &[]),
        entry("busybox", &[], &["sh"]),
        entry("alpine", &[], &["sh"]),
        // As the real one: it ends when asked to, which a first process without a handler does not.
        entry(
            "pause",
            &["sh", "-c", "trap 'exit 0' TERM INT; sleep infinity & wait"],
            &[],
        ),
        entry("kennethreitz/httpbin", &[SELF, "sample", "httpbin"], &[]),
        entry("mccutchen/go-httpbin", &[SELF, "sample", "httpbin"], &[]),
        entry("lateen/httpbin", &[SELF, "sample", "httpbin"], &[]),
        entry(
            "hiroakis/tornado-websocket-example",
            &[SELF, "sample", "websocket"],
            &[],
        ),
        entry("istio/tcp-echo-server", &[SELF, "sample", "tcp-echo"], &[]),
        entry("istio/ext-authz", &[SELF, "sample", "ext-authz"], &[]),
        entry("lateen/ext-authz", &[SELF, "sample", "ext-authz"], &[]),
        entry("lateen/tcp-echo", &[SELF, "sample", "tcp-echo"], &[]),
    ];
    for version in ["v1", "v2", "v3"] {
        let reviews = [SELF, "sample", "reviews", "--version", version];
        all.push(entry(&format!("bookinfo/reviews:{version}"), &reviews, &[]));
        all.push(entry(&format!("bookinfo/reviews-{version}"), &reviews, &[]));
        all.push(entry(
            &format!("istio/examples-bookinfo-reviews-{version}"),
            &reviews,
            &[],
        ));
        let hello = [SELF, "sample", "helloworld", "--version", version];
        all.push(entry(
            &format!("istio/examples-helloworld-{version}"),
            &hello,
            &[],
        ));
        all.push(entry(&format!("lateen/helloworld:{version}"), &hello, &[]));
    }
    for app in ["productpage", "details", "ratings"] {
        all.push(entry(
            &format!("bookinfo/{app}*"),
            &[SELF, "sample", app],
            &[],
        ));
        all.push(entry(
            &format!("istio/examples-bookinfo-{app}*"),
            &[SELF, "sample", app],
            &[],
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, expected: Option<&str>) {
        let images = Images::built_in();
        let found = images
            .find(image)
            .map(|i| [i.command.clone(), i.args.clone()].concat().join(" "));
        assert_eq!(found.as_deref(), expected, "{image}");
    }

    #[test]
    fn names_with_any_registry_and_tag_are_found() {
        check("lateen/pilot", Some("lateen control"));
        check("docker.io/istio/proxyv2:1.27.0", Some("lateen"));
        check("gcr.io/istio-testing/istio/proxyv2", Some("lateen"));
        check("localhost:5000/istio/pilot:dev", Some("lateen control"));
        check(
            "docker.io/istio/examples-bookinfo-reviews-v2:1.20.3",
            Some("lateen sample reviews --version v2"),
        );
        check(
            "registry.istio.io/release/examples-bookinfo-details-v1:1.20.3",
            Some("lateen sample details"),
        );
        check(
            "registry.istio.io/release/examples-helloworld-v2:1.0",
            Some("lateen sample helloworld --version v2"),
        );
        check(
            "gcr.io/istio-testing/tcp-echo-server:1.3",
            Some("lateen sample tcp-echo"),
        );
        check(
            "gcr.io/istio-testing/ext-authz:latest",
            Some("lateen sample ext-authz"),
        );
        check(
            "docker.io/hiroakis/tornado-websocket-example",
            Some("lateen sample websocket"),
        );
        check(
            "bookinfo/reviews:v3",
            Some("lateen sample reviews --version v3"),
        );
        check(
            "istio/examples-bookinfo-productpage-v1:1.20.3",
            Some("lateen sample productpage"),
        );
        check("docker.io/library/busybox:1.36", Some("sh"));
        check("busybox@sha256:00", Some("sh"));
        let pause = "sh -c trap 'exit 0' TERM INT; sleep infinity & wait";
        check("registry.k8s.io/pause:3.10", Some(pause));
        check("curlimages/curl", Some("curl"));
        check("nginx:1.27", None);
        check("evil/busybox", None);
    }

    #[test]
    fn a_users_file_goes_before_the_table() {
        let mut entries =
            parse("- image: 'team/*-api'\n  command: [/opt/api]\n  env: {A: b}\n").expect("valid");
        entries.extend(built_in());
        let images = Images { entries };
        let found = images.find("registry.example/team/orders-api:2");
        assert_eq!(
            found.map(|i| i.command.clone()),
            Some(vec!["/opt/api".to_owned()])
        );
        assert!(
            parse("- imag: x")
                .expect_err("unknown key")
                .contains("imag")
        );
    }
}
