//! Extension providers of MeshConfig (Istio: `extensionProviders`): services that policies refer to by name.

use crate::fields::{DurationText, Labels};
use crate::notice::{Notice, Subject};
use crate::validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One provider: a name and exactly one kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// Name that policies use; unique.
    #[schemars(length(max = 253))]
    pub name: String,
    /// External authorization by HTTP.
    pub envoy_ext_authz_http: Option<ExtAuthzHttp>,
    /// External authorization by gRPC.
    pub envoy_ext_authz_grpc: Option<ExtAuthzGrpc>,
}

/// External authorization by HTTP: the provider gets a request like the one to be checked, 200 means yes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzHttp {
    /// Host of the service, as [namespace/]host.
    #[schemars(length(max = 512))]
    pub service: String,
    /// Its port.
    pub port: u32,
    /// Bound on one check; 600s when absent.
    pub timeout: Option<DurationText>,
    /// What goes before the path.
    #[schemars(length(max = 2048))]
    pub path_prefix: Option<String>,
    /// Whether requests pass when the provider cannot be asked; false when absent.
    pub fail_open: Option<bool>,
    /// Status of the answer when the provider cannot be asked; 403 when absent.
    pub status_on_error: Option<String>,
    /// Headers of the request that are sent.
    #[schemars(length(max = 256))]
    pub include_request_headers_in_check: Vec<String>,
    /// Old name of includeRequestHeadersInCheck.
    #[schemars(length(max = 256))]
    pub include_headers_in_check: Vec<String>,
    /// Headers that are added to the check.
    pub include_additional_headers_in_check: Labels,
    /// How much of the body is sent.
    pub include_request_body_in_check: Option<RequestBody>,
    /// Headers of a yes that are added to the request.
    #[schemars(length(max = 256))]
    pub headers_to_upstream_on_allow: Vec<String>,
    /// Headers of a no that the client gets; all when empty.
    #[schemars(length(max = 256))]
    pub headers_to_downstream_on_deny: Vec<String>,
    /// Headers of a yes that are added to the client's response.
    #[schemars(length(max = 256))]
    pub headers_to_downstream_on_allow: Vec<String>,
    /// Whether the route is chosen anew after a yes.
    pub clear_route_cache: Option<bool>,
}

/// External authorization by gRPC (Envoy: `envoy.service.auth.v3.Authorization`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtAuthzGrpc {
    /// Host of the service, as [namespace/]host.
    #[schemars(length(max = 512))]
    pub service: String,
    /// Its port.
    pub port: u32,
    /// Bound on one check; 600s when absent.
    pub timeout: Option<DurationText>,
    /// Whether requests pass when the provider cannot be asked; false when absent.
    pub fail_open: Option<bool>,
    /// Status of the answer when the provider cannot be asked; 403 when absent.
    pub status_on_error: Option<String>,
    /// How much of the body is sent.
    pub include_request_body_in_check: Option<RequestBody>,
    /// Whether the route is chosen anew after a yes.
    pub clear_route_cache: Option<bool>,
}

/// How much of a request's body is sent with a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestBody {
    /// Most bytes.
    pub max_request_bytes: u32,
    /// Whether a longer body is cut; if not it is answered 413.
    pub allow_partial_message: Option<bool>,
    /// Whether gRPC carries it as bytes.
    pub pack_as_bytes: Option<bool>,
}

/// Kinds of providers that Istio has and Lateen does not use yet.
const LATER: [&str; 15] = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "opencensus",
    "skywalking",
    "opentelemetry",
    "prometheus",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyTcpAls",
    "envoyOtelAls",
    "envoyExtProcHttp",
    "envoyExtProcGrpc",
    "sds",
];

/// Takes providers out that have no effect yet; their fields.
pub(super) fn later(config: &mut Map<String, Value>) -> Vec<String> {
    let mut fields = Vec::new();
    let list = config.get_mut("extensionProviders");
    let providers = list.and_then(Value::as_array_mut).into_iter().flatten();
    for (i, provider) in providers.enumerate() {
        let Some(provider) = provider.as_object_mut() else {
            continue;
        };
        for name in LATER {
            if provider.remove(name).is_some() {
                fields.push(format!("extensionProviders[{i}].{name}"));
            }
        }
    }
    fields
}

/// What both kinds of external authorization have.
struct Common<'a> {
    service: &'a str,
    port: u32,
    timeout: Option<&'a DurationText>,
    status: Option<&'a str>,
    body: Option<RequestBody>,
}

/// What is wrong with providers; all of it is an error, since policies that name one could not be decided.
pub(super) fn check(providers: &[ExtensionProvider], subject: &Subject) -> Vec<Notice> {
    let mut notices = Vec::new();
    for (i, one) in providers.iter().enumerate() {
        let field = format!("extensionProviders[{i}]");
        let mut error = |name: &str, message: String| {
            let joint = if name.is_empty() { "" } else { "." };
            notices.push(Notice::error(
                subject,
                format!("{field}{joint}{name}"),
                message,
            ));
        };
        if one.name.is_empty() {
            error("name", "is missing: policies refer to it".to_owned());
        }
        if providers.iter().take(i).any(|other| other.name == one.name) {
            let message = format!("{:?} names another provider already: rename one", one.name);
            error("name", message);
        }
        if let Some(http) = &one.envoy_ext_authz_http {
            let mut error =
                |name: &str, message| error(&format!("envoyExtAuthzHttp.{name}"), message);
            common(&http.common(), &mut error);
            let prefix = http.path_prefix.as_deref().unwrap_or("/");
            if !prefix.is_empty() && !prefix.starts_with('/') {
                error(
                    "pathPrefix",
                    format!("{prefix:?} does not begin with a slash"),
                );
            }
            headers(http, &mut error);
        }
        if let Some(grpc) = &one.envoy_ext_authz_grpc {
            let mut error =
                |name: &str, message| error(&format!("envoyExtAuthzGrpc.{name}"), message);
            common(&grpc.common(), &mut error);
        }
        if one.envoy_ext_authz_http.is_some() && one.envoy_ext_authz_grpc.is_some() {
            error("", "is of two kinds: keep one of them".to_owned());
        }
    }
    notices
}

impl ExtAuthzHttp {
    fn common(&self) -> Common<'_> {
        Common {
            service: &self.service,
            port: self.port,
            timeout: self.timeout.as_ref(),
            status: self.status_on_error.as_deref(),
            body: self.include_request_body_in_check,
        }
    }
}

impl ExtAuthzGrpc {
    fn common(&self) -> Common<'_> {
        Common {
            service: &self.service,
            port: self.port,
            timeout: self.timeout.as_ref(),
            status: self.status_on_error.as_deref(),
            body: self.include_request_body_in_check,
        }
    }
}

fn common(common: &Common<'_>, error: &mut impl FnMut(&str, String)) {
    let host = common.service.rsplit('/').next().unwrap_or_default();
    if host.contains('*') {
        error("service", "has a wildcard: name one service".to_owned());
    } else if let Some(message) = validate::bad_host(host) {
        error("service", message);
    }
    if !(1..=65535).contains(&common.port) {
        error(
            "port",
            format!("{} is not a port; use 1 to 65535", common.port),
        );
    }
    if let Some(timeout) = common.timeout
        && timeout.parse().is_ok_and(|timeout| timeout.is_zero())
    {
        error("timeout", "must be more than 0".to_owned());
    }
    let good = |text: &str| {
        text.parse()
            .is_ok_and(|status: u16| (200..=599).contains(&status))
    };
    if let Some(status) = common.status.filter(|text| !good(text)) {
        error(
            "statusOnError",
            format!("{status:?} is not a status; use 200 to 599"),
        );
    }
    if common.body.is_some_and(|body| body.max_request_bytes == 0) {
        error(
            "includeRequestBodyInCheck.maxRequestBytes",
            "is missing: say how many bytes are sent".to_owned(),
        );
    }
}

fn headers(http: &ExtAuthzHttp, error: &mut impl FnMut(&str, String)) {
    let lists = [
        (
            "includeRequestHeadersInCheck",
            &http.include_request_headers_in_check,
        ),
        ("includeHeadersInCheck", &http.include_headers_in_check),
        (
            "headersToUpstreamOnAllow",
            &http.headers_to_upstream_on_allow,
        ),
        (
            "headersToDownstreamOnDeny",
            &http.headers_to_downstream_on_deny,
        ),
        (
            "headersToDownstreamOnAllow",
            &http.headers_to_downstream_on_allow,
        ),
    ];
    for (name, list) in lists {
        for (i, text) in list.iter().enumerate() {
            let plain = text.strip_suffix('*').or_else(|| text.strip_prefix('*'));
            if !is_header(plain.unwrap_or(text)) && text != "*" {
                let message = format!("{text:?} is not a header, prefix* or *suffix");
                error(&format!("{name}[{i}]"), message);
            }
        }
    }
    for (name, value) in &http.include_additional_headers_in_check {
        let field = crate::path::key("includeAdditionalHeadersInCheck", name);
        if !is_header(name) {
            error(&field, format!("{name:?} is not a header"));
        } else if value.contains(['\r', '\n', '\0']) {
            error(&field, "has a line break in its value".to_owned());
        }
    }
}

fn is_header(name: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_empty() && !name.contains('*') && name.chars().all(token)
}
