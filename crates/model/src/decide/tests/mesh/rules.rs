//! VirtualServices and servers of gateways in the language of [`super`].

mod effects;

use super::{full, option, origin, pairs, visibility};
use crate::gateway::{Server, ServerHost, ServerProtocol};
use crate::matching::{Pattern, Replacement, StringMatch};
use crate::resource::Resource;
use crate::route::*;
use crate::tls::{ServerTls, ServerTlsMode, TlsVersion};
use lateen_base::Str;
use std::time::Duration;

pub fn table(rest: &[&str], age: u64) -> RouteTable {
    let gateways = option(rest, "gateways").unwrap_or("mesh");
    RouteTable {
        origin: origin("VirtualService", rest[0], age),
        hosts: option(rest, "hosts")
            .expect("hosts")
            .split(',')
            .map(full)
            .collect(),
        gateways: gateways.split(',').map(Str::from).collect(),
        visibility: visibility(rest),
        http: Vec::new(),
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

pub fn add_rule(resource: &mut Resource, kind: &str, words: &[&str]) {
    let arrow = words.iter().position(|w| *w == "->").unwrap_or(words.len());
    let (matches, action) = (&words[..arrow], words.get(arrow + 1..).unwrap_or(&[]));
    match (resource, kind) {
        (Resource::RouteTable(table), "http") => table.http.push(http(matches, action)),
        (Resource::RouteTable(table), "tcp") => table.tcp.push(TcpRoute {
            matches: l4_match(matches),
            destinations: action.iter().filter_map(|w| weighted(w)).collect(),
        }),
        (Resource::RouteTable(table), "tls") => table.tls.push(TlsRoute {
            matches: l4_match(matches),
            destinations: action.iter().filter_map(|w| weighted(w)).collect(),
        }),
        (Resource::AuthorizationPolicy(policy), "rule") => {
            policy.rules.push(super::security::rule(words));
        }
        (Resource::Gateway(gateway), _) => {
            let (kind, port) = words[0].split_once(':').expect("proto:port");
            let namespace = gateway.origin.namespace.clone();
            gateway.servers.push(server(kind, port, words, &namespace));
        }
        _ => panic!("a rule under the wrong object"),
    }
}

fn server(kind: &str, port: &str, words: &[&str], namespace: &Str) -> Server {
    let hosts = option(words, "hosts")
        .expect("hosts")
        .split(',')
        .map(|text| {
            let (ns, host) = text.split_once('/').unwrap_or(("*", text));
            let namespace = match ns {
                "*" => None,
                "." => Some(namespace.clone()),
                other => Some(other.into()),
            };
            ServerHost {
                namespace,
                host: host.into(),
            }
        });
    Server {
        name: "".into(),
        port: port.parse().expect("port"),
        port_name: kind.into(),
        protocol: match kind {
            "http" => ServerProtocol::Http,
            "tcp" => ServerProtocol::Tcp,
            "tls" => ServerProtocol::TlsPassthrough,
            "https" => ServerProtocol::Https,
            "auto" => ServerProtocol::TlsAutoPassthrough,
            _ => ServerProtocol::TlsTerminate,
        },
        hosts: hosts.collect(),
        https_redirect: words.contains(&"redirect"),
        bind: option(words, "bind").map(|ip| ip.parse().expect("address")),
        tls: matches!(kind, "https" | "ends").then(|| ServerTls {
            mode: match words {
                w if w.contains(&"mutual") => ServerTlsMode::Mutual,
                w if w.contains(&"mesh") => ServerTlsMode::IstioMutual,
                _ => ServerTlsMode::Simple,
            },
            credentials: option(words, "cred")
                .into_iter()
                .flat_map(|list| list.split(','))
                .map(Str::from)
                .collect(),
            ca_credential: None,
            files: Vec::new(),
            sans: Vec::new(),
            spki: Vec::new(),
            hashes: Vec::new(),
            min: TlsVersion::V1_2,
            max: TlsVersion::V1_3,
            ciphers: Vec::new(),
            curves: Vec::new(),
            skip_verify: false,
        }),
    }
}

pub(super) fn weighted(word: &str) -> Option<WeightedDestination> {
    let (destination, weight) = match word.split_once('=') {
        Some((d, w)) => (d, w.parse().ok()?),
        None => (word, 0),
    };
    let (host, subset) = match destination.split_once('/') {
        Some((host, subset)) => (host, Some(subset.into())),
        None => (destination, None),
    };
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (host, None),
    };
    let host = full(host);
    Some(WeightedDestination {
        destination: Destination { host, subset, port },
        weight,
    })
}

fn string_match(text: &str) -> StringMatch {
    match text.split_at(1) {
        ("=", value) => StringMatch::Exact(value.into()),
        ("^", value) => StringMatch::Prefix(value.into()),
        ("~", value) => StringMatch::Regex(Pattern::new(value).expect("regex")),
        _ => StringMatch::Present,
    }
}

fn named_match(text: &str) -> (Str, StringMatch) {
    let at = text.find(['=', '^', '~', '*']).expect("a match sign");
    (text[..at].into(), string_match(&text[at..]))
}

/// `a.b=value`.
fn claim(text: &str, not: bool) -> ClaimMatch {
    let (path, wanted) = named_match(text);
    ClaimMatch {
        path: path.split('.').map(Str::from).collect(),
        wanted,
        not,
    }
}

fn http_match(words: &[&str]) -> HttpMatch {
    let mut m = HttpMatch::default();
    for word in words {
        if let Some(rest) = word.strip_prefix("uri") {
            m.uri = Some(string_match(rest));
        } else if let Some(rest) = word.strip_prefix("method") {
            m.method = Some(string_match(rest));
        } else if let Some(rest) = word.strip_prefix("authority") {
            m.authority = Some(string_match(rest));
        } else if let Some(rest) = word.strip_prefix("scheme") {
            m.scheme = Some(string_match(rest));
        } else if let Some(rest) = word.strip_prefix("header:") {
            m.headers.extend([named_match(rest)]);
        } else if let Some(rest) = word.strip_prefix("!header:") {
            m.without_headers.extend([named_match(rest)]);
        } else if let Some(rest) = word.strip_prefix("query:") {
            m.query.extend([named_match(rest)]);
        } else if let Some(rest) = word.strip_prefix("source:") {
            m.source_labels = pairs(&[rest]);
        } else if let Some(rest) = word.strip_prefix("claim:") {
            m.claims.push(claim(rest, false));
        } else if let Some(rest) = word.strip_prefix("!claim:") {
            m.claims.push(claim(rest, true));
        } else if *word == "nocase" {
            m.ignore_uri_case = true;
        }
    }
    m.name = option(words, "called").unwrap_or_default().into();
    m.port = option(words, "port").and_then(|p| p.parse().ok());
    m.source_namespace = option(words, "from").map(Str::from);
    m.gateways = option(words, "at").into_iter().map(Str::from).collect();
    m
}

fn l4_match(words: &[&str]) -> Vec<L4Match> {
    if words.is_empty() {
        return Vec::new();
    }
    let list = |key| {
        option(words, key)
            .into_iter()
            .flat_map(|l| l.split(','))
            .map(Str::from)
    };
    vec![L4Match {
        sni_hosts: list("sni").collect(),
        destination_subnets: list("subnet").collect(),
        port: option(words, "port").and_then(|p| p.parse().ok()),
        source_labels: words
            .iter()
            .find_map(|w| Some(pairs(&[w.strip_prefix("source:")?])))
            .unwrap_or_default(),
        source_namespace: option(words, "from").map(Str::from),
        gateways: option(words, "at").into_iter().map(Str::from).collect(),
        source_subnet: option(words, "client").map(Str::from),
    }]
}

fn edits(words: &[&str], side: &str) -> HeaderEdit {
    let mut edit = HeaderEdit::default();
    for text in words
        .iter()
        .filter_map(|w| w.strip_prefix(side)?.strip_prefix(':'))
    {
        if let Some((name, value)) = text.split_once("+=") {
            edit.add.push((name.into(), value.into()));
        } else if let Some((name, value)) = text.split_once('=') {
            edit.set.push((name.into(), value.into()));
        } else {
            edit.remove.push(text.into());
        }
    }
    edit
}

fn http(matches: &[&str], action: &[&str]) -> HttpRoute {
    let alternatives: Vec<_> = matches
        .split(|w| *w == "|")
        .map(|words| {
            words
                .iter()
                .filter(|w| !w.starts_with("name="))
                .copied()
                .collect::<Vec<_>>()
        })
        .filter(|words| !words.is_empty())
        .map(|words| http_match(&words))
        .collect();
    let code = |default: u16| option(action, "code").map_or(default, |c| c.parse().expect("code"));
    let text = |key| option(action, key).map(Str::from);
    let operations = HeaderOperations {
        request: edits(action, "request"),
        response: edits(action, "response"),
    };
    HttpRoute {
        name: option(matches, "name").unwrap_or_default().into(),
        matches: alternatives,
        action: match action.first().copied() {
            Some("redirect") => HttpAction::Redirect(Redirect {
                uri: text("uri"),
                authority: text("authority"),
                scheme: text("scheme"),
                prefix: text("prefix"),
                port: match option(action, "port") {
                    None => RedirectPort::Kept,
                    Some("request") => RedirectPort::Request,
                    Some(port) => RedirectPort::Number(port.parse().expect("port")),
                },
                status: code(301),
            }),
            Some("direct") => HttpAction::Direct(DirectResponse {
                status: code(200),
                body: option(action, "body").unwrap_or_default().into(),
            }),
            _ => HttpAction::Forward(
                action
                    .iter()
                    .filter(|w| !is_option(w))
                    .filter_map(|w| destination(w))
                    .collect(),
            ),
        },
        rewrite: rewrite(action),
        timeout: option(action, "timeout")
            .map(|s| Duration::from_secs(s.parse().expect("seconds"))),
        retries: option(action, "retries").map(|n| RetryPolicy {
            attempts: n.parse().expect("number"),
            per_try_timeout: None,
            retry_on: option(action, "on").into_iter().map(Str::from).collect(),
            backoff: None,
            ignore_previous_hosts: true,
            remote_localities: false,
            careful: false,
        }),
        headers: operations,
        fault: effects::fault(action),
        mirrors: effects::mirrors(action),
        cors: effects::cors(action),
        delegated: None,
    }
}

/// Whether a word of an action is no destination.
fn is_option(w: &str) -> bool {
    let key = w.split(['=', ':']).next().unwrap_or(w);
    matches!(
        key,
        "rewrite"
            | "authority"
            | "regex"
            | "timeout"
            | "retries"
            | "request"
            | "response"
            | "on"
            | "delay"
            | "abort"
            | "mirror"
            | "cors"
    )
}

fn rewrite(action: &[&str]) -> Option<Rewrite> {
    let text = |key| option(action, key).map(Str::from);
    let rewrite = Rewrite {
        uri: text("rewrite"),
        authority: text("authority"),
        regex: option(action, "regex").map(|both| {
            let (pattern, by) = both.split_once("->").expect("pattern->substitution");
            Replacement::new(pattern, by).expect("valid")
        }),
    };
    let changes = rewrite.uri.is_some() || rewrite.authority.is_some() || rewrite.regex.is_some();
    changes.then_some(rewrite)
}

/// `host=weight`, with `!name=value` for a header set by this destination alone.
fn destination(word: &str) -> Option<HttpDestination> {
    let (word, header) = match word.split_once('!') {
        Some((word, header)) => (word, Some(header)),
        None => (word, None),
    };
    let found = weighted(word)?;
    let mut headers = HeaderOperations::default();
    if let Some((name, value)) = header.and_then(|h| h.split_once('=')) {
        headers.request.set.push((name.into(), value.into()));
    }
    Some(HttpDestination {
        destination: found.destination,
        weight: found.weight,
        headers,
    })
}
