//! Addresses for ServiceEntries that have none (Istio: automatic allocation). What an object's status says stays; the
//! rest is drawn by the host's name, so that two control planes draw the same. Pure: reading and writing statuses is
//! done by others.

use crate::source::{Books, Id, Written};
use lateen_api::meta::Config;
use lateen_api::object::Object;
use lateen_api::service_entry::ServiceEntry;
use lateen_translate::service_entry::{Allocated, allocatable};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The ranges: 240.240.0.0/16 and 2001:2::/48, of which as many addresses are used (Istio:
/// `PILOT_IP_AUTOALLOCATE_IPV4_PREFIX` and `…_IPV6_PREFIX`).
const V4: Ipv4Addr = Ipv4Addr::new(240, 240, 0, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 0);
/// Addresses of a range; the first and the last are left out.
const SIZE: u32 = 1 << 16;

/// Who has which address.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    entries: BTreeMap<Id, Entry>,
    /// What was given out, by entry.
    given: BTreeMap<Id, Allocated>,
    has_changed: bool,
}

#[derive(Debug, PartialEq)]
struct Entry {
    /// Hosts that want addresses.
    hosts: Vec<String>,
    /// What the status says.
    told: Allocated,
    /// Addresses that users chose themselves.
    own: Vec<IpAddr>,
    created: u64,
}

impl Allocator {
    /// Takes a ServiceEntry as it is now. An object that cannot be read keeps what it has.
    pub(crate) fn see(&mut self, id: &Id, written: &Written, books: &Books) {
        let Some(Object::ServiceEntry(config)) = &written.object else {
            return;
        };
        let entry = Entry::of(config, &books.status);
        if self.entries.get(id) != Some(&entry) {
            self.entries.insert(id.clone(), entry);
            self.has_changed = true;
        }
    }

    /// Forgets a ServiceEntry; its addresses are free.
    pub(crate) fn forget(&mut self, id: &Id) {
        self.has_changed |= self.entries.remove(id).is_some();
    }

    /// Forgets every ServiceEntry that is not among `here`.
    pub(crate) fn keep(&mut self, here: &BTreeSet<Id>) {
        let before = self.entries.len();
        self.entries.retain(|id, _| here.contains(id));
        self.has_changed |= self.entries.len() != before;
    }

    /// Gives addresses to who lacks them and tells what changed: entries with all of their addresses, or with none.
    pub(crate) fn settle(&mut self) -> Vec<(Id, Option<Allocated>)> {
        if !std::mem::take(&mut self.has_changed) {
            return Vec::new();
        }
        let given = self.allocate();
        let mut changes = Vec::new();
        for (id, new) in &given {
            if self.given.get(id) != Some(new) {
                changes.push((id.clone(), Some(new.clone())));
            }
        }
        let gone = self.given.keys().filter(|id| !given.contains_key(*id));
        changes.extend(gone.map(|id| (id.clone(), None)));
        self.given = given;
        changes
    }

    /// `status.addresses` as it should be; null: none. Absent: it is right as it is.
    pub(crate) fn status(&self, id: &Id, status: &Value) -> Option<Value> {
        let given = self.given.get(id);
        let hosts = given.into_iter().flatten();
        let wanted: Vec<Value> = hosts
            .flat_map(|(host, list)| {
                list.iter()
                    .map(move |ip| json!({ "value": ip.to_string(), "host": host }))
            })
            .collect();
        let there = status["addresses"].as_array().map(Vec::as_slice);
        if there.unwrap_or_default() == wanted {
            return None;
        }
        Some(match wanted.is_empty() {
            true => Value::Null,
            false => json!(wanted),
        })
    }

    fn allocate(&self) -> BTreeMap<Id, Allocated> {
        let own = self.entries.values().flat_map(|e| &e.own);
        let mut taken: HashSet<IpAddr> = own.copied().collect();
        let mut given: BTreeMap<Id, Allocated> = BTreeMap::new();
        // Of two that say the same address is theirs, the older one is right.
        let mut in_age: Vec<_> = self.entries.iter().collect();
        in_age.sort_by_key(|(id, entry)| (entry.created, *id));
        for (id, entry) in &in_age {
            for host in &entry.hosts {
                let told = entry.told.get(host).into_iter().flatten();
                let kept: Vec<IpAddr> = told.filter(|ip| taken.insert(**ip)).copied().collect();
                if !kept.is_empty() {
                    let of = given.entry((*id).clone()).or_default();
                    of.insert(host.clone(), kept);
                }
            }
        }
        for (id, entry) in &in_age {
            for host in &entry.hosts {
                let of = given.entry((*id).clone()).or_default();
                let list = of.entry(host.clone()).or_default();
                complete(list, &format!("{id}/{host}"), &mut taken);
            }
        }
        given.retain(|_, of| {
            of.retain(|_, list| !list.is_empty());
            !of.is_empty()
        });
        given
    }
}

impl Entry {
    fn of(config: &Config<ServiceEntry>, status: &Value) -> Self {
        let hosts: Vec<String> = allocatable(config).map(str::to_owned).collect();
        let mut told = Allocated::new();
        for address in status["addresses"].as_array().into_iter().flatten() {
            let ip = address["value"].as_str().and_then(|ip| ip.parse().ok());
            let (Some(ip), Some(host)) = (ip, address["host"].as_str()) else {
                continue;
            };
            if is_ours(ip) && hosts.iter().any(|h| h == host) {
                told.entry(host.to_owned()).or_default().push(ip);
            }
        }
        let own = config.spec.addresses.iter().filter_map(|a| a.parse().ok());
        Self {
            hosts,
            told,
            own: own.collect(),
            created: config.meta.created,
        }
    }
}

/// Draws what a host lacks: an address of each version, the next free one after where its name leads.
fn complete(list: &mut Vec<IpAddr>, name: &str, taken: &mut HashSet<IpAddr>) {
    let start = hash(name) % (SIZE - 2);
    for at in [v4 as fn(u32) -> IpAddr, v6] {
        if list.iter().any(|ip| ip.is_ipv4() == at(0).is_ipv4()) {
            continue;
        }
        let mut all = (0..SIZE - 2).map(|n| at((start + n) % (SIZE - 2) + 1));
        match all.find(|ip| !taken.contains(ip)) {
            Some(ip) => {
                taken.insert(ip);
                list.push(ip);
            }
            None => tracing::warn!("no address is left for the ServiceEntry host {name}"),
        }
    }
    list.sort_by_key(IpAddr::is_ipv6);
}

fn v4(offset: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(V4.to_bits() + offset))
}

fn v6(offset: u32) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from_bits(V6.to_bits() + u128::from(offset)))
}

/// Whether an address is one that is given out here or by Istio.
fn is_ours(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.to_bits() >> 16 == V4.to_bits() >> 16,
        IpAddr::V6(ip) => ip.to_bits() >> 80 == V6.to_bits() >> 80,
    }
}

/// FNV-1a: the same in every build, which the standard library's hashes are not.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::slim::written;

    /// Feeds a ServiceEntry `ns/NAME`, created in this second.
    fn see(allocator: &mut Allocator, name: &str, second: u32, spec: Value, status: Value) {
        let object = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {
                "name": name, "namespace": "ns",
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            },
            "spec": spec,
        });
        let books = Books {
            status,
            ..Books::default()
        };
        let written = written(object);
        assert!(written.object.is_some(), "{:?}", written.notices);
        allocator.see(&Id::new("ns", name), &written, &books);
    }

    fn spec(hosts: &[&str]) -> Value {
        json!({ "hosts": hosts, "resolution": "DNS", "ports": [{ "number": 1, "name": "t", "protocol": "TCP" }],
            "endpoints": [{ "address": "x.example" }] })
    }

    /// Addresses by host after settling, of everything that changed.
    fn settled(allocator: &mut Allocator) -> Vec<String> {
        let changes = allocator.settle();
        let lines = changes.into_iter().map(|(id, of)| match of {
            None => format!("{}: none", id.name),
            Some(of) => format!("{}: {of:?}", id.name),
        });
        lines.collect()
    }

    #[test]
    fn the_status_survives_and_the_rest_is_drawn() {
        let mut first = Allocator::default();
        see(
            &mut first,
            "a",
            1,
            spec(&["a.example", "*.a.example", "b.example"]),
            Value::Null,
        );
        let drawn = settled(&mut first);
        assert_eq!(drawn.len(), 1);
        assert_eq!(settled(&mut first), Vec::<String>::new(), "nothing new");
        let id = Id::new("ns", "a");
        let status = first.status(&id, &Value::Null).expect("to be written");
        assert_eq!(status.as_array().map(Vec::len), Some(4), "{status}");
        assert_eq!(first.status(&id, &json!({ "addresses": status })), None);

        // Another control plane that could not read the status draws the same.
        let mut second = Allocator::default();
        see(
            &mut second,
            "a",
            1,
            spec(&["a.example", "*.a.example", "b.example"]),
            Value::Null,
        );
        assert_eq!(settled(&mut second), drawn);

        // What the status says counts, in whichever order objects come; what it lacks is added.
        let told = json!({ "addresses": [
            { "value": "240.240.9.9", "host": "a.example" },
            { "value": "10.0.0.1", "host": "b.example" },
            { "value": "240.240.9.8", "host": "gone.example" },
        ] });
        let mut third = Allocator::default();
        see(&mut third, "a", 1, spec(&["a.example"]), told);
        let kept = &settled(&mut third)[0];
        assert!(
            kept.starts_with("a: {\"a.example\": [240.240.9.9, 2001:2::"),
            "{kept}"
        );
    }

    #[test]
    fn an_address_has_one_owner() {
        let told = json!({ "addresses": [{ "value": "240.240.9.9", "host": "a.example" }] });
        let mut allocator = Allocator::default();
        see(
            &mut allocator,
            "copy",
            2,
            spec(&["a.example"]),
            told.clone(),
        );
        see(&mut allocator, "old", 1, spec(&["a.example"]), told);
        let all = settled(&mut allocator).join("\n");
        assert!(all.contains("old: {\"a.example\": [240.240.9.9"), "{all}");
        assert_eq!(all.matches("240.240.9.9").count(), 1, "{all}");
        let mut many = Allocator::default();
        let hosts: Vec<String> = (0..256).map(|n| format!("h{n}.example")).collect();
        let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
        for n in 0..40 {
            see(&mut many, &format!("m{n}"), 1, spec(&hosts), Value::Null);
        }
        let mut seen = HashSet::new();
        for (_, of) in many.settle() {
            for ip in of.into_iter().flatten().flat_map(|(_, list)| list) {
                assert!(is_ours(ip) && seen.insert(ip), "{ip} twice");
            }
        }
        assert_eq!(seen.len(), 2 * 40 * 256);
    }

    #[test]
    fn who_stops_wanting_gives_back() {
        let mut allocator = Allocator::default();
        see(&mut allocator, "a", 1, spec(&["a.example"]), Value::Null);
        settled(&mut allocator);
        let id = Id::new("ns", "a");
        let mut own = spec(&["a.example"]);
        own["addresses"] = json!(["192.0.2.1"]);
        let told = json!({ "addresses": [{ "value": "240.240.9.9", "host": "a.example" }] });
        see(&mut allocator, "a", 1, own, told.clone());
        assert_eq!(settled(&mut allocator), ["a: none"]);
        assert_eq!(allocator.status(&id, &told), Some(Value::Null));
        allocator.forget(&id);
        assert_eq!(settled(&mut allocator), Vec::<String>::new());
    }
}
