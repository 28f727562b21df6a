//! Parts that several messages share, and the error that grows its path on the way out.

use ipnet::IpNet;
use lateen_base::Str;
use lateen_model::matching::{Pattern, StringMatch};
use lateen_model::name::{Origin, ServiceKey, Visibility};
use lateen_proto::mesh as proto;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// A field that cannot be read.
#[derive(Debug)]
pub(super) struct Bad {
    pub field: String,
    pub reason: String,
}

pub(super) type Read<T> = Result<T, Bad>;

/// A field that cannot be read, and why.
pub(super) fn bad(field: &str, reason: impl Into<String>) -> Bad {
    Bad {
        field: field.to_owned(),
        reason: reason.into(),
    }
}

/// Adds the path of the enclosing field to errors.
pub(super) trait Within<T> {
    fn within(self, field: &str) -> Read<T>;
}

impl<T> Within<T> for Read<T> {
    fn within(self, field: &str) -> Self {
        self.map_err(|inner| {
            let joint = if inner.field.is_empty() { "" } else { "." };
            Bad {
                field: format!("{field}{joint}{}", inner.field),
                reason: inner.reason,
            }
        })
    }
}

/// A message that must be there.
pub(super) fn required<T>(value: Option<T>, field: &str) -> Read<T> {
    value.ok_or_else(|| bad(field, "it is missing"))
}

/// A text that must not be empty.
pub(super) fn named(value: &str, field: &str) -> Read<Str> {
    match value {
        "" => Err(bad(field, "it is empty")),
        text => Ok(text.into()),
    }
}

/// Each element, with its position in errors.
pub(super) fn each<M, T>(list: Vec<M>, field: &str, read: impl Fn(M) -> Read<T>) -> Read<Vec<T>> {
    let numbered = list.into_iter().enumerate();
    numbered
        .map(|(at, item)| read(item).within(&format!("{field}[{at}]")))
        .collect()
}

/// An enum value that this version knows; `read` gives none for 0 and for unknown ones.
pub(super) fn known<T>(value: Option<T>, number: i32, field: &str) -> Read<T> {
    value.ok_or_else(|| {
        bad(
            field,
            format!("value {number} is not known to this version"),
        )
    })
}

/// A number that fits a port or prefix.
pub(super) fn narrow<T: TryFrom<u32>>(number: u32, field: &str) -> Read<T> {
    T::try_from(number).map_err(|_| bad(field, format!("{number} is out of range")))
}

/// A port of which 0 says that there is none.
pub(super) fn optional_port(number: u32, field: &str) -> Read<Option<u16>> {
    Ok(Some(narrow(number, field)?).filter(|port| *port != 0))
}

/// A port that must be there.
pub(super) fn port(number: u32, field: &str) -> Read<u16> {
    optional_port(number, field)?.ok_or_else(|| bad(field, "it is missing"))
}

pub(super) fn text(value: &Str) -> String {
    value.to_string()
}

pub(super) fn texts(list: &[Str]) -> Vec<String> {
    list.iter().map(text).collect()
}

pub(super) fn strs(list: Vec<String>) -> Vec<Str> {
    list.into_iter().map(Str::from).collect()
}

pub(super) fn optional(value: &Option<Str>) -> Option<String> {
    value.as_ref().map(text)
}

pub(super) fn map(labels: &BTreeMap<Str, Str>) -> BTreeMap<String, String> {
    labels.iter().map(|(k, v)| (text(k), text(v))).collect()
}

pub(super) fn labels(map: BTreeMap<String, String>) -> BTreeMap<Str, Str> {
    let pairs = map.into_iter();
    pairs.map(|(k, v)| (k.into(), v.into())).collect()
}

pub(super) fn origin(from: &Origin) -> Option<proto::Origin> {
    Some(proto::Origin {
        kind: text(&from.kind),
        namespace: text(&from.namespace),
        name: text(&from.name),
        created: from.created,
    })
}

pub(super) fn read_origin(from: Option<proto::Origin>) -> Read<Origin> {
    let from = required(from, "origin")?;
    Ok(Origin {
        kind: named(&from.kind, "kind").within("origin")?,
        namespace: from.namespace.into(),
        name: named(&from.name, "name").within("origin")?,
        created: from.created,
    })
}

pub(super) fn key(from: &ServiceKey) -> Option<proto::ServiceKey> {
    Some(proto::ServiceKey {
        namespace: text(&from.namespace),
        hostname: text(&from.hostname),
    })
}

pub(super) fn read_key(from: Option<proto::ServiceKey>) -> Read<ServiceKey> {
    let from = required(from, "key")?;
    Ok(ServiceKey {
        namespace: named(&from.namespace, "namespace").within("key")?,
        hostname: named(&from.hostname, "hostname").within("key")?,
    })
}

pub(super) fn visibility(from: &Visibility) -> Option<proto::Namespaces> {
    match from {
        Visibility::Public => None,
        Visibility::Namespaces(names) => Some(proto::Namespaces {
            names: texts(names),
        }),
    }
}

pub(super) fn read_visibility(from: Option<proto::Namespaces>) -> Visibility {
    match from {
        None => Visibility::Public,
        Some(list) => Visibility::Namespaces(strs(list.names)),
    }
}

pub(super) fn ip(from: IpAddr) -> Vec<u8> {
    match from {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

pub(super) fn read_ip(from: &[u8], field: &str) -> Read<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(from) {
        return Ok(Ipv4Addr::from(four).into());
    }
    match <[u8; 16]>::try_from(from) {
        Ok(sixteen) => Ok(Ipv6Addr::from(sixteen).into()),
        Err(_) => {
            let length = from.len();
            Err(bad(
                field,
                format!("an address has 4 or 16 bytes, not {length}"),
            ))
        }
    }
}

/// Headers with their values.
pub(super) fn pairs(list: &[(Str, Str)]) -> Vec<proto::Header> {
    let pair = |(name, value): &(Str, Str)| proto::Header {
        name: text(name),
        value: text(value),
    };
    list.iter().map(pair).collect()
}

pub(super) fn read_pairs(list: Vec<proto::Header>, field: &str) -> Read<Vec<(Str, Str)>> {
    let pair = |h: proto::Header| Ok((named(&h.name, "name")?, h.value.into()));
    each(list, field, pair)
}

/// An address with a prefix that fits it.
pub(super) fn read_address(from: &proto::Address) -> Read<(IpAddr, u8)> {
    let ip = read_ip(&from.ip, "ip")?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    if from.prefix > most {
        return Err(bad("prefix", format!("{} is over {most}", from.prefix)));
    }
    Ok((ip, narrow(from.prefix, "prefix")?))
}

pub(super) fn nets(from: &[IpNet]) -> Vec<proto::Address> {
    let net = |n: &IpNet| proto::Address {
        ip: ip(n.addr()),
        prefix: n.prefix_len().into(),
    };
    from.iter().map(net).collect()
}

pub(super) fn read_nets(from: Vec<proto::Address>, field: &str) -> Read<Vec<IpNet>> {
    each(from, field, |address| {
        let (ip, prefix) = read_address(&address)?;
        IpNet::new(ip, prefix).map_err(|e| bad("prefix", e.to_string()))
    })
}

/// Durations beyond 500 years are cut; no setting means them.
pub(super) fn duration(from: Option<Duration>) -> Option<proto::Duration> {
    from.map(|d| proto::Duration {
        nanos: u64::try_from(d.as_nanos()).unwrap_or(u64::MAX),
    })
}

pub(super) fn read_duration(from: Option<proto::Duration>) -> Option<Duration> {
    from.map(|d| Duration::from_nanos(d.nanos))
}

pub(super) fn string_match(from: &StringMatch) -> proto::StringMatch {
    use proto::string_match::Kind;
    let kind = match from {
        StringMatch::Exact(value) => Kind::Exact(text(value)),
        StringMatch::Prefix(value) => Kind::Prefix(text(value)),
        StringMatch::Regex(pattern) => Kind::Regex(pattern.source().to_owned()),
        StringMatch::Present => Kind::Present(true),
    };
    proto::StringMatch { kind: Some(kind) }
}

pub(super) fn read_string_match(from: proto::StringMatch) -> Read<StringMatch> {
    use proto::string_match::Kind;
    Ok(match required(from.kind, "")? {
        Kind::Exact(value) => StringMatch::Exact(value.into()),
        Kind::Prefix(value) => StringMatch::Prefix(value.into()),
        Kind::Regex(value) => {
            StringMatch::Regex(Pattern::new(&value).map_err(|e| bad("", e.to_string()))?)
        }
        Kind::Present(_) => StringMatch::Present,
    })
}
