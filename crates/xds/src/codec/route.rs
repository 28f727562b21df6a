//! Route tables.

mod effects;

use super::parts::{
    Read, Within, bad, duration, each, labels, map, named, narrow, optional, optional_port, origin,
    pairs, read_duration, read_origin, read_pairs, read_string_match, read_visibility, required,
    string_match, strs, text, texts, visibility,
};
use lateen_base::Str;
use lateen_model::matching::StringMatch;
use lateen_model::route::{
    Destination, DirectResponse, HeaderEdit, HeaderOperations, HttpAction, HttpDestination,
    HttpMatch, HttpRoute, L4Match, Redirect, RedirectPort, RouteTable, TcpRoute, TlsRoute,
    WeightedDestination,
};
use lateen_proto::mesh as proto;
use std::collections::BTreeMap;

type Matches = BTreeMap<String, proto::StringMatch>;

pub(super) fn encode(from: &RouteTable) -> proto::RouteTable {
    proto::RouteTable {
        origin: origin(&from.origin),
        hosts: texts(&from.hosts),
        gateways: texts(&from.gateways),
        visible_to: visibility(&from.visibility),
        http: from.http.iter().map(encode_http).collect(),
        tls: from
            .tls
            .iter()
            .map(|r| encode_l4(&r.matches, &r.destinations))
            .collect(),
        tcp: from
            .tcp
            .iter()
            .map(|r| encode_l4(&r.matches, &r.destinations))
            .collect(),
    }
}

fn encode_http(from: &HttpRoute) -> proto::HttpRoute {
    use proto::http_route::Action;
    let action = match &from.action {
        HttpAction::Forward(list) => Action::Forward(proto::Forward {
            destinations: list
                .iter()
                .map(|d| proto::HttpDestination {
                    destination: Some(encode_destination(&d.destination)),
                    weight: d.weight,
                    headers: encode_operations(&d.headers),
                })
                .collect(),
        }),
        HttpAction::Redirect(to) => Action::Redirect(proto::Redirect {
            uri: optional(&to.uri),
            authority: optional(&to.authority),
            scheme: optional(&to.scheme),
            port: match to.port {
                RedirectPort::Number(port) => port.into(),
                RedirectPort::Kept | RedirectPort::Request => 0,
            },
            status: to.status.into(),
            request_port: to.port == RedirectPort::Request,
            prefix: optional(&to.prefix),
        }),
        HttpAction::Direct(answer) => Action::Direct(proto::DirectResponse {
            status: answer.status.into(),
            body: answer.body.clone(),
        }),
    };
    proto::HttpRoute {
        name: text(&from.name),
        matches: from.matches.iter().map(encode_match).collect(),
        action: Some(action),
        rewrite: from.rewrite.as_ref().map(|r| proto::Rewrite {
            uri: optional(&r.uri),
            authority: optional(&r.authority),
            regex: r.regex.as_ref().map(|regex| proto::RegexRewrite {
                pattern: regex.pattern().to_owned(),
                substitution: regex.substitution().to_owned(),
            }),
        }),
        timeout: duration(from.timeout),
        retries: from.retries.as_ref().map(effects::encode_retries),
        headers: encode_operations(&from.headers),
        fault: from.fault.as_ref().map(effects::encode_fault),
        mirrors: from.mirrors.iter().map(effects::encode_mirror).collect(),
        cors: from.cors.as_ref().map(effects::encode_cors),
        delegated: from.delegated.as_ref().map(|d| proto::Delegated {
            origin: origin(&d.origin),
            index: effects::position(d.index),
            root: effects::position(d.root),
        }),
    }
}

pub(super) fn encode_match(from: &HttpMatch) -> proto::HttpMatch {
    let one = |m: &Option<StringMatch>| m.as_ref().map(string_match);
    let all = |m: &BTreeMap<Str, StringMatch>| -> Matches {
        m.iter().map(|(k, v)| (text(k), string_match(v))).collect()
    };
    proto::HttpMatch {
        name: text(&from.name),
        uri: one(&from.uri),
        ignore_uri_case: from.ignore_uri_case,
        scheme: one(&from.scheme),
        method: one(&from.method),
        authority: one(&from.authority),
        headers: all(&from.headers),
        without_headers: all(&from.without_headers),
        query: all(&from.query),
        port: from.port.unwrap_or(0).into(),
        source_labels: map(&from.source_labels),
        source_namespace: optional(&from.source_namespace),
        gateways: texts(&from.gateways),
        claims: from.claims.iter().map(effects::encode_claim).collect(),
    }
}

pub(super) fn encode_destination(from: &Destination) -> proto::Destination {
    proto::Destination {
        host: text(&from.host),
        subset: optional(&from.subset),
        port: from.port.unwrap_or(0).into(),
    }
}

fn encode_operations(from: &HeaderOperations) -> Option<proto::HeaderOperations> {
    let edit = |e: &HeaderEdit| {
        (*e != HeaderEdit::default()).then(|| proto::HeaderEdit {
            set: pairs(&e.set),
            add: pairs(&e.add),
            remove: texts(&e.remove),
        })
    };
    (*from != HeaderOperations::default()).then(|| proto::HeaderOperations {
        request: edit(&from.request),
        response: edit(&from.response),
    })
}

fn encode_l4(matches: &[L4Match], destinations: &[WeightedDestination]) -> proto::L4Route {
    proto::L4Route {
        matches: matches
            .iter()
            .map(|m| proto::L4Match {
                sni_hosts: texts(&m.sni_hosts),
                destination_subnets: texts(&m.destination_subnets),
                port: m.port.unwrap_or(0).into(),
                source_labels: map(&m.source_labels),
                source_namespace: optional(&m.source_namespace),
                gateways: texts(&m.gateways),
                source_subnet: optional(&m.source_subnet),
            })
            .collect(),
        destinations: destinations
            .iter()
            .map(|d| proto::WeightedDestination {
                destination: Some(encode_destination(&d.destination)),
                weight: d.weight,
            })
            .collect(),
    }
}

pub(super) fn decode(from: proto::RouteTable) -> Read<RouteTable> {
    Ok(RouteTable {
        origin: read_origin(from.origin)?,
        hosts: strs(from.hosts),
        gateways: strs(from.gateways),
        visibility: read_visibility(from.visible_to),
        http: each(from.http, "http", decode_http)?,
        tls: each(from.tls, "tls", |r| {
            let (matches, destinations) = decode_l4(r)?;
            Ok(TlsRoute {
                matches,
                destinations,
            })
        })?,
        tcp: each(from.tcp, "tcp", |r| {
            let (matches, destinations) = decode_l4(r)?;
            Ok(TcpRoute {
                matches,
                destinations,
            })
        })?,
    })
}

fn decode_http(from: proto::HttpRoute) -> Read<HttpRoute> {
    use proto::http_route::Action;
    let action = match required(from.action, "action")? {
        Action::Forward(list) => HttpAction::Forward(each(
            list.destinations,
            "destinations",
            decode_http_destination,
        )?),
        Action::Redirect(to) => HttpAction::Redirect(Redirect {
            uri: to.uri.map(Into::into),
            authority: to.authority.map(Into::into),
            scheme: to.scheme.map(Into::into),
            port: match optional_port(to.port, "redirect.port")? {
                Some(port) => RedirectPort::Number(port),
                None if to.request_port => RedirectPort::Request,
                None => RedirectPort::Kept,
            },
            prefix: to.prefix.map(Into::into),
            status: status(to.status, 300..=399, "redirect.status")?,
        }),
        Action::Direct(answer) => HttpAction::Direct(DirectResponse {
            status: status(answer.status, 200..=599, "direct.status")?,
            body: answer.body,
        }),
    };
    Ok(HttpRoute {
        name: from.name.into(),
        matches: each(from.matches, "matches", decode_match)?,
        action,
        rewrite: from
            .rewrite
            .map(effects::decode_rewrite)
            .transpose()
            .within("rewrite")?,
        timeout: read_duration(from.timeout),
        retries: from.retries.map(effects::decode_retries),
        headers: decode_operations(from.headers).within("headers")?,
        fault: from
            .fault
            .map(effects::decode_fault)
            .transpose()
            .within("fault")?,
        mirrors: each(from.mirrors, "mirrors", effects::decode_mirror)?,
        cors: from
            .cors
            .map(effects::decode_cors)
            .transpose()
            .within("cors")?,
        delegated: from
            .delegated
            .map(effects::decode_delegated)
            .transpose()
            .within("delegated")?,
    })
}

fn status(number: u32, range: std::ops::RangeInclusive<u16>, field: &str) -> Read<u16> {
    let status = narrow(number, field)?;
    match range.contains(&status) {
        true => Ok(status),
        false => Err(bad(field, format!("{status} is not in {range:?}"))),
    }
}

pub(super) fn decode_match(from: proto::HttpMatch) -> Read<HttpMatch> {
    let one = |m: Option<proto::StringMatch>, field: &str| {
        m.map(|m| read_string_match(m).within(field)).transpose()
    };
    let all = |m: Matches, field: &str| -> Read<BTreeMap<Str, StringMatch>> {
        m.into_iter()
            .map(|(k, v)| {
                let read = read_string_match(v).within(&format!("{field}[{k}]"))?;
                Ok((k.into(), read))
            })
            .collect()
    };
    Ok(HttpMatch {
        name: from.name.into(),
        uri: one(from.uri, "uri")?,
        ignore_uri_case: from.ignore_uri_case,
        scheme: one(from.scheme, "scheme")?,
        method: one(from.method, "method")?,
        authority: one(from.authority, "authority")?,
        headers: all(from.headers, "headers")?,
        without_headers: all(from.without_headers, "without_headers")?,
        query: all(from.query, "query")?,
        port: optional_port(from.port, "port")?,
        source_labels: labels(from.source_labels),
        source_namespace: from.source_namespace.map(Into::into),
        gateways: strs(from.gateways),
        claims: each(from.claims, "claims", effects::decode_claim)?,
    })
}

fn decode_http_destination(from: proto::HttpDestination) -> Read<HttpDestination> {
    Ok(HttpDestination {
        destination: decode_destination(from.destination)?,
        weight: from.weight,
        headers: decode_operations(from.headers).within("headers")?,
    })
}

pub(super) fn decode_destination(from: Option<proto::Destination>) -> Read<Destination> {
    let from = required(from, "destination")?;
    Ok(Destination {
        host: named(&from.host, "host").within("destination")?,
        subset: from.subset.map(Into::into),
        port: optional_port(from.port, "port").within("destination")?,
    })
}

fn decode_operations(from: Option<proto::HeaderOperations>) -> Read<HeaderOperations> {
    let Some(from) = from else {
        return Ok(HeaderOperations::default());
    };
    Ok(HeaderOperations {
        request: decode_edit(from.request).within("request")?,
        response: decode_edit(from.response).within("response")?,
    })
}

fn decode_edit(from: Option<proto::HeaderEdit>) -> Read<HeaderEdit> {
    let Some(from) = from else {
        return Ok(HeaderEdit::default());
    };
    Ok(HeaderEdit {
        set: read_pairs(from.set, "set")?,
        add: read_pairs(from.add, "add")?,
        remove: strs(from.remove),
    })
}

fn decode_l4(from: proto::L4Route) -> Read<(Vec<L4Match>, Vec<WeightedDestination>)> {
    let matches = each(from.matches, "matches", |m| {
        Ok(L4Match {
            sni_hosts: strs(m.sni_hosts),
            destination_subnets: strs(m.destination_subnets),
            port: optional_port(m.port, "port")?,
            source_labels: labels(m.source_labels),
            source_namespace: m.source_namespace.map(Into::into),
            gateways: strs(m.gateways),
            source_subnet: m.source_subnet.map(Into::into),
        })
    })?;
    let destinations = each(from.destinations, "destinations", |d| {
        Ok(WeightedDestination {
            destination: decode_destination(d.destination)?,
            weight: d.weight,
        })
    })?;
    Ok((matches, destinations))
}
