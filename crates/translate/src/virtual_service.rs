//! VirtualService → route table: short hosts become full, gateways `namespace/name`, conditions compiled.
//!
//! A condition that cannot be compiled refuses the whole object: leaving a rule out would hand its traffic to the
//! rules after it.

mod delegate;
mod http;
mod l4;

use crate::mesh::Mesh;
use crate::names::{full_host, gateway_name, origin, visibility};
use crate::{NOT_YET, Translated};
use lateen_api::fields::{Destination as WrittenDestination, Labels};
use lateen_api::meta::Config;
use lateen_api::notice::{Notice, Subject, any_error};
use lateen_api::validate;
use lateen_api::virtual_service::VirtualService;
use lateen_base::Str;
use lateen_model::resource::Resource;
use lateen_model::route::{Delegated, Destination, RouteTable};
use std::collections::BTreeMap;

/// What a VirtualService is translated from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The VirtualService.
    pub config: &'a Config<VirtualService>,
    /// The mesh.
    pub mesh: &'a Mesh,
    /// The VirtualServices that it delegates to, as far as they exist; absent: nobody knows which exist, and rules that
    /// delegate are left out without a word.
    pub delegates: Option<&'a [&'a Config<VirtualService>]>,
}

/// The objects that a VirtualService delegates to, as namespace and name.
pub fn delegates(config: &Config<VirtualService>) -> impl Iterator<Item = (&str, &str)> {
    config.spec.http.iter().filter_map(|rule| {
        let to = rule.delegate.as_ref()?;
        let namespace = to.namespace.as_deref().filter(|ns| !ns.is_empty());
        Some((
            namespace.unwrap_or(&config.meta.namespace),
            to.name.as_deref()?,
        ))
    })
}

/// Translates a VirtualService. One without hosts, which others delegate to, has no meaning of its own: it gives notices.
pub fn virtual_service(inputs: Inputs<'_>) -> Translated {
    let Inputs {
        config,
        mesh,
        delegates,
    } = inputs;
    let spec = &config.spec;
    let mut reading = Reading {
        subject: Subject::new("VirtualService", &config.meta),
        namespace: &config.meta.namespace,
        mesh,
        notices: validate::virtual_service(config),
    };
    if any_error(&reading.notices) {
        return (Vec::new(), reading.notices);
    }
    let mut rules = Vec::new();
    for (i, rule) in spec.http.iter().enumerate() {
        let field = format!("spec.http[{i}]");
        let mut translated = http::rule(&mut reading, &field, rule);
        match &rule.delegate {
            None => {
                // Rules that stand in for others move those after them: who reads of a rule counts as written.
                translated.delegated = (rules.len() != i).then(|| Delegated {
                    origin: origin("VirtualService", &config.meta),
                    index: i,
                    root: i,
                });
                rules.push(translated);
            }
            Some(to) => {
                let root = delegate::Root {
                    rule: translated,
                    index: i,
                    field: &field,
                };
                rules.extend(delegate::rules(&mut reading, root, to, delegates));
            }
        }
    }
    if spec.hosts.is_empty() {
        return (Vec::new(), reading.notices);
    }
    let gateways = if spec.gateways.is_empty() {
        vec!["mesh".into()]
    } else {
        reading.gateways(&spec.gateways)
    };
    let table = RouteTable {
        origin: origin("VirtualService", &config.meta),
        hosts: spec.hosts.iter().map(|host| reading.host(host)).collect(),
        gateways,
        visibility: visibility(
            &spec.export_to,
            &mesh.config.default_virtual_service_export_to,
            &config.meta.namespace,
        ),
        http: rules,
        tls: spec
            .tls
            .iter()
            .map(|rule| l4::tls(&reading, rule))
            .collect(),
        tcp: spec
            .tcp
            .iter()
            .map(|rule| l4::tcp(&reading, rule))
            .collect(),
    };
    crate::done(Resource::RouteTable(table), reading.notices)
}

/// One VirtualService while it is read.
struct Reading<'a> {
    subject: Subject,
    namespace: &'a str,
    mesh: &'a Mesh,
    notices: Vec<Notice>,
}

impl Reading<'_> {
    fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notices
            .push(Notice::error(&self.subject, field, message));
    }

    fn warning(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.notices
            .push(Notice::warning(&self.subject, field, message));
    }

    /// Says that `field` has no effect, if it is given.
    fn not_yet(&mut self, field: String, is_given: bool) {
        if is_given {
            self.warning(field, NOT_YET);
        }
    }

    fn host(&self, host: &str) -> Str {
        full_host(host, self.namespace, &self.mesh.domain)
    }

    fn gateways(&self, gateways: &[String]) -> Vec<Str> {
        gateways
            .iter()
            .map(|gateway| gateway_name(gateway, self.namespace))
            .collect()
    }

    fn destination(&self, written: &WrittenDestination) -> Destination {
        Destination {
            host: self.host(&written.host),
            subset: written.subset.as_deref().map(Into::into),
            port: port(written.port.as_ref().and_then(|p| p.number)),
        }
    }
}

/// A port; 0 means none, as in protobuf.
fn port(number: Option<u32>) -> Option<u16> {
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
}

fn labels(written: &Labels) -> BTreeMap<Str, Str> {
    crate::names::labels(written)
}

/// Weights as routing uses them: one destination alone takes everything, others without weight take nothing and
/// are left out (Istio: weight 0 of several destinations means none).
fn weighted<T>(mut all: Vec<(T, Option<i32>)>) -> Vec<(T, u32)> {
    if all.len() == 1 {
        return all.pop().map(|(one, _)| (one, 1)).into_iter().collect();
    }
    all.into_iter()
        .map(|(one, weight)| (one, u32::try_from(weight.unwrap_or(0)).unwrap_or(0)))
        .filter(|(_, weight)| *weight > 0)
        .collect()
}

#[cfg(test)]
mod tests;
