//! Lines about policies that notice without refusing: AUDIT policies that match, and dry-run policies that would have
//! refused. JSON beside the access log; what requests are refused for is the access log's own business.

use crate::connection::Conn;
use http::request;
use lateen_model::decide::authz::Ruling;
use lateen_telemetry::access_log::Format;
use lateen_telemetry::record::Record;
use serde_json::{Value, json};
use std::net::IpAddr;

/// Something that policies were asked about.
pub(crate) struct Noticed<'a> {
    pub(crate) conn: &'a Conn,
    pub(crate) record: &'a Record,
    /// Absent: bytes.
    pub(crate) request: Option<Said<'a>>,
}

/// What a request says of itself.
pub(crate) struct Said<'a> {
    pub(crate) head: &'a request::Parts,
    pub(crate) authority: &'a str,
    /// The client's address as trusted proxies tell it.
    pub(crate) remote: IpAddr,
}

impl Noticed<'_> {
    /// Writes a line for each AUDIT policy that matches, and one for dry-run policies that would refuse.
    pub(crate) fn write(&self, ruling: &Ruling) {
        for policy in &ruling.audits {
            let name = format!("{}/{}", policy.namespace, policy.name);
            self.line("audit", &name, Value::Null);
        }
        if let Some(shadow) = ruling.shadow.as_ref().filter(|shadow| !shadow.allowed) {
            let name = shadow.matched.as_ref().map_or_else(
                || "none".to_owned(),
                |m| format!("{}/{}", m.policy.namespace, m.policy.name),
            );
            self.line("dry-run", &name, json!(false));
        }
    }

    fn line(&self, what: &str, policy: &str, allowed: Value) {
        let mut time = Vec::new();
        if let Ok(format) = Format::parse("%START_TIME%") {
            format.write(self.record, &mut time);
        }
        let conn = self.conn;
        let identity = conn.peer.identity.as_ref();
        let mut line = json!({
            "log": what,
            "time": String::from_utf8_lossy(&time),
            "policy": policy,
            "allowed": allowed,
            "source_principal": identity.map(|id| id.uri()),
            "source": conn.facts.source.ip().to_string(),
            "port": conn.facts.destination.port(),
        });
        if let (Some(said), Value::Object(line)) = (&self.request, &mut line) {
            let id = said.head.headers.get("x-request-id");
            line.insert("remote".into(), json!(said.remote.to_string()));
            line.insert("method".into(), json!(said.head.method.as_str()));
            line.insert("authority".into(), json!(said.authority));
            line.insert("path".into(), json!(said.head.uri.path()));
            let id = id.and_then(|id| id.to_str().ok());
            line.insert("request_id".into(), json!(id));
        }
        let log = &conn.worker.shared.log;
        log.write(format!("{line}\n").into_bytes(), 1);
    }
}
