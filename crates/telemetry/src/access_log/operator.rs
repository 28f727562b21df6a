//! The operators of the format language: their names, arguments, and which headers they need.

use super::FormatError;
use http::HeaderName;

/// One operator.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operator {
    StartTime(Option<String>),
    Request(Vec<Field>),
    RequestWithoutQuery(Vec<Field>),
    Response(Vec<HeaderName>),
    Simple(Simple),
}

/// Where a request field comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Field {
    Method,
    Path,
    Authority,
    Scheme,
    OriginalPath,
    Header(HeaderName),
}

/// Operators without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Simple {
    Protocol,
    Code,
    CodeDetails,
    Flags,
    FlagsLong,
    Termination,
    TransportFailure,
    Received,
    Sent,
    Duration,
    UpstreamHost,
    UpstreamCluster,
    UpstreamLocal,
    Local,
    LocalIp,
    LocalPort,
    Remote,
    RemoteIp,
    ServerName,
    RouteName,
    GrpcStatus,
    Attempts,
}

const SIMPLE: [(&str, Simple); 28] = [
    ("PROTOCOL", Simple::Protocol),
    ("RESPONSE_CODE", Simple::Code),
    ("RESPONSE_CODE_DETAILS", Simple::CodeDetails),
    ("RESPONSE_FLAGS", Simple::Flags),
    ("RESPONSE_FLAGS_LONG", Simple::FlagsLong),
    ("CONNECTION_TERMINATION_DETAILS", Simple::Termination),
    (
        "UPSTREAM_TRANSPORT_FAILURE_REASON",
        Simple::TransportFailure,
    ),
    ("BYTES_RECEIVED", Simple::Received),
    ("BYTES_SENT", Simple::Sent),
    ("DURATION", Simple::Duration),
    ("UPSTREAM_HOST", Simple::UpstreamHost),
    ("UPSTREAM_REMOTE_ADDRESS", Simple::UpstreamHost),
    ("UPSTREAM_CLUSTER", Simple::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Simple::UpstreamCluster),
    ("UPSTREAM_LOCAL_ADDRESS", Simple::UpstreamLocal),
    ("DOWNSTREAM_LOCAL_ADDRESS", Simple::Local),
    ("DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", Simple::LocalIp),
    ("DOWNSTREAM_LOCAL_PORT", Simple::LocalPort),
    ("DOWNSTREAM_REMOTE_ADDRESS", Simple::Remote),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", Simple::RemoteIp),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", Simple::Remote),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Simple::RemoteIp,
    ),
    ("REQUESTED_SERVER_NAME", Simple::ServerName),
    ("ROUTE_NAME", Simple::RouteName),
    ("GRPC_STATUS", Simple::GrpcStatus),
    ("GRPC_STATUS_NUMBER", Simple::GrpcStatus),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Simple::Attempts),
    ("UPSTREAM_CLUSTER_NAME", Simple::UpstreamCluster),
];

impl Operator {
    /// Reads what stands between two percent signs: a name, an argument in parentheses, a length after a colon.
    pub(super) fn parse(text: &str) -> Result<(Self, Option<usize>), FormatError> {
        let wrong = || FormatError::Argument(text.to_owned());
        let (head, most) = match text.rfind(')') {
            Some(close) => (&text[..=close], text[close + 1..].strip_prefix(':')),
            None => match text.split_once(':') {
                Some((name, most)) => (name, Some(most)),
                None => (text, None),
            },
        };
        let most = most.map(|n| n.parse().map_err(|_| wrong())).transpose()?;
        let (name, argument) = match head.split_once('(') {
            Some((name, rest)) => (name, Some(rest.strip_suffix(')').ok_or_else(wrong)?)),
            None => (head, None),
        };
        let operator = match (name, argument) {
            ("START_TIME", format) => Self::StartTime(format.map(str::to_owned)),
            ("REQ", Some(names)) => Self::Request(fields(names).ok_or_else(wrong)?),
            ("REQ_WITHOUT_QUERY", Some(names)) => {
                Self::RequestWithoutQuery(fields(names).ok_or_else(wrong)?)
            }
            ("RESP", Some(names)) => {
                let names = names.split('?').map(|n| n.parse().ok());
                Self::Response(names.collect::<Option<_>>().ok_or_else(wrong)?)
            }
            ("REQ" | "RESP" | "REQ_WITHOUT_QUERY", None) => return Err(wrong()),
            (name, _) => match SIMPLE.iter().find(|(known, _)| *known == name) {
                Some((_, simple)) => Self::Simple(*simple),
                None => return Err(FormatError::Unknown(text.to_owned())),
            },
        };
        Ok((operator, most))
    }

    /// Adds the headers that the operator shows.
    pub(super) fn headers(&self, request: &mut Vec<HeaderName>, response: &mut Vec<HeaderName>) {
        match self {
            Self::Request(fields) | Self::RequestWithoutQuery(fields) => {
                request.extend(fields.iter().filter_map(|f| match f {
                    Field::Header(name) => Some(name.clone()),
                    _ => None,
                }));
            }
            Self::Response(names) => response.extend(names.iter().cloned()),
            Self::StartTime(_) | Self::Simple(_) => {}
        }
    }
}

// `A?B`: the first that the request has.
fn fields(names: &str) -> Option<Vec<Field>> {
    names
        .split('?')
        .map(|name| {
            Some(match name.to_ascii_lowercase().as_str() {
                ":method" => Field::Method,
                ":path" => Field::Path,
                ":authority" | "host" => Field::Authority,
                ":scheme" => Field::Scheme,
                "x-envoy-original-path" => Field::OriginalPath,
                other => Field::Header(other.parse().ok()?),
            })
        })
        .collect()
}

/// Envoy's long names of response flags.
pub(super) fn long_flag(short: &str) -> &str {
    match short {
        "UH" => "NoHealthyUpstream",
        "UF" => "UpstreamConnectionFailure",
        "UO" => "UpstreamOverflow",
        "NR" => "NoRouteFound",
        "NC" => "NoClusterFound",
        "URX" => "UpstreamRetryLimitExceeded",
        "DC" => "DownstreamConnectionTermination",
        "LR" => "LocalReset",
        "UR" => "UpstreamRemoteReset",
        "UC" => "UpstreamConnectionTermination",
        "UT" => "UpstreamRequestTimeout",
        "DPE" => "DownstreamProtocolError",
        "UPE" => "UpstreamProtocolError",
        other => other,
    }
}
