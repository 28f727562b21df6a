//! Case files: a list of cases in YAML, objects in short or whole form. The form is told in `simulation/README.md`.

use lateen_api::yaml;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Keys of short forms, and their kinds.
const SHORT: [(&str, &str, &str); 10] = [
    ("service", "v1", "Service"),
    ("gateway", "networking.istio.io/v1", "Gateway"),
    ("virtualService", "networking.istio.io/v1", "VirtualService"),
    (
        "destinationRule",
        "networking.istio.io/v1",
        "DestinationRule",
    ),
    ("serviceEntry", "networking.istio.io/v1", "ServiceEntry"),
    ("workloadEntry", "networking.istio.io/v1", "WorkloadEntry"),
    ("sidecar", "networking.istio.io/v1", "Sidecar"),
    (
        "peerAuthentication",
        "security.istio.io/v1",
        "PeerAuthentication",
    ),
    (
        "authorizationPolicy",
        "security.istio.io/v1",
        "AuthorizationPolicy",
    ),
    (
        "requestAuthentication",
        "security.istio.io/v1",
        "RequestAuthentication",
    ),
];

/// Other keys of a case.
const KEYS: [&str; 7] = [
    "title",
    "fields",
    "objects",
    "meshConfig",
    "pods",
    "calls",
    "notices",
];

/// One case.
#[derive(Debug)]
pub struct Case {
    pub file: PathBuf,
    pub line: usize,
    /// A sentence of a user.
    pub title: String,
    /// Kind and schema path of the fields that it shows.
    pub fields: Vec<(String, String)>,
    /// Whole objects, oldest first.
    pub objects: Vec<Value>,
    /// MeshConfig as YAML; empty: the default one.
    pub mesh_config: String,
    /// Pods beside those of the world, as lines.
    pub pods: Vec<String>,
    pub calls: Vec<Call>,
    /// Parts of every notice that comes.
    pub notices: Vec<String>,
    /// Line of `notices`, else of `calls`.
    pub notices_line: usize,
}

/// One call with its plan.
#[derive(Debug)]
pub struct Call {
    /// The pod whose proxy decides, `gateway` or `egress`.
    pub from: String,
    pub text: String,
    /// Absent: not blessed yet.
    pub plan: Option<String>,
    /// Line of `plan`, else of `call`.
    pub line: usize,
}

impl Case {
    /// File and line.
    pub fn place(&self) -> String {
        let name = self.file.file_name().unwrap_or_default();
        format!("{}:{}", name.to_string_lossy(), self.line)
    }
}

/// Reads a file of cases.
pub fn read(file: &Path) -> Vec<Case> {
    let text = fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let (value, lines) =
        yaml::plain(&text).unwrap_or_else(|(line, e)| panic!("{}:{line}: {e}", file.display()));
    let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |(i, value): (usize, &Value)| {
        let at = |field: &str| lines(&format!("[{i}]{field}"));
        case(file, value, &at)
    };
    list.iter().enumerate().map(one).collect()
}

fn case(file: &Path, value: &Value, line: &dyn Fn(&str) -> usize) -> Case {
    let here = format!("{}:{}", file.display(), line(""));
    let known =
        |key: &String| KEYS.contains(&key.as_str()) || SHORT.iter().any(|(short, ..)| short == key);
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("{here}: no mapping"));
    let unknown: Vec<_> = object.keys().filter(|key| !known(key)).collect();
    assert!(unknown.is_empty(), "{here}: unknown keys {unknown:?}");
    let calls = list(&value["calls"]).enumerate().map(|(i, call)| {
        let plan = call["plan"].as_str().map(|text| text.trim_end().to_owned());
        let key = if plan.is_some() { "plan" } else { "call" };
        Call {
            from: call["from"].as_str().unwrap_or("sleep").to_owned(),
            text: text(&call["call"], &here),
            plan,
            line: line(&format!(".calls[{i}].{key}")),
        }
    });
    let has_notices = !value["notices"].is_null();
    Case {
        file: file.to_owned(),
        line: line(""),
        title: text(&value["title"], &here),
        fields: list(&value["fields"])
            .map(|f| field(&text(f, &here), &here))
            .collect(),
        objects: objects(value, &here),
        mesh_config: match &value["meshConfig"] {
            Value::Null => String::new(),
            config => yaml::render(config),
        },
        pods: list(&value["pods"]).map(|pod| text(pod, &here)).collect(),
        calls: calls.collect(),
        notices: list(&value["notices"]).map(|n| text(n, &here)).collect(),
        notices_line: line(if has_notices { ".notices" } else { ".calls" }),
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value, here: &str) -> String {
    let text = value
        .as_str()
        .unwrap_or_else(|| panic!("{here}: {value} is no text"));
    text.to_owned()
}

/// `Kind path`.
fn field(text: &str, here: &str) -> (String, String) {
    let parts = text.split_once(' ');
    let (kind, path) = parts.unwrap_or_else(|| panic!("{here}: {text:?} is not KIND PATH"));
    (kind.to_owned(), path.to_owned())
}

/// Objects of the short forms, then those of `objects`; each a second younger than the one before it.
fn objects(case: &Value, here: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for (key, version, kind) in SHORT {
        match &case[key] {
            Value::Null => {}
            Value::Array(several) => all.extend(several.iter().map(|o| whole(o, version, kind))),
            one => all.push(whole(one, version, kind)),
        }
    }
    all.extend(list(&case["objects"]).cloned());
    for (i, object) in all.iter_mut().enumerate() {
        assert!(
            object["metadata"].is_object(),
            "{here}: no metadata in {object}"
        );
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{i:02}Z").into();
        }
    }
    all
}

/// The whole object of a short form: its spec, with `name: namespace/name` and `metadata` beside.
fn whole(short: &Value, version: &str, kind: &str) -> Value {
    let mut spec = short.clone();
    let mut take = |key: &str| spec.as_object_mut().and_then(|o| o.remove(key));
    let name = take("name");
    let mut metadata = take("metadata").unwrap_or_else(|| json!({}));
    let name = name.as_ref().and_then(Value::as_str);
    let (namespace, name) = match name {
        Some(name) => name.split_once('/').unwrap_or(("default", name)),
        None => ("default", &*kind.to_ascii_lowercase()),
    };
    metadata["name"] = name.into();
    metadata["namespace"] = namespace.into();
    json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec})
}
