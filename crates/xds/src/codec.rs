//! Model to protobuf and back. Encoding is deterministic: equal values give equal bytes. Decoding
//! refuses what it cannot mean in full: unknown enum values, missing parts, bad addresses and regexes.

mod gateway;
mod limit;
mod mesh;
mod parts;
mod policy;
mod route;
mod scope;
mod security;
mod service;
mod tls;
mod traffic;
mod workload;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use lateen_model::resource::{Kind, Resource};
use lateen_proto::mesh as proto;
use prost::Message;
use std::fmt;

/// Common start of the type URLs of Lateen's resources.
const PREFIX: &str = "type.googleapis.com/lateen.mesh.v1.";

/// The type URL of lookups, which are asked and answered by name and carry nothing.
pub const LOOKUP: &str = "type.googleapis.com/lateen.mesh.v1.Lookup";

/// The type URL of a kind.
pub fn type_url(kind: Kind) -> &'static str {
    match kind {
        Kind::MeshSettings => "type.googleapis.com/lateen.mesh.v1.MeshSettings",
        Kind::Service => "type.googleapis.com/lateen.mesh.v1.Service",
        Kind::Workload => "type.googleapis.com/lateen.mesh.v1.Workload",
        Kind::TrafficPolicy => "type.googleapis.com/lateen.mesh.v1.TrafficPolicy",
        Kind::SidecarScope => "type.googleapis.com/lateen.mesh.v1.SidecarScope",
        Kind::RouteTable => "type.googleapis.com/lateen.mesh.v1.RouteTable",
        Kind::Gateway => "type.googleapis.com/lateen.mesh.v1.Gateway",
        Kind::TrustBundle => "type.googleapis.com/lateen.mesh.v1.TrustBundle",
        Kind::PeerAuthentication => "type.googleapis.com/lateen.mesh.v1.PeerAuthentication",
        Kind::RequestAuthentication => "type.googleapis.com/lateen.mesh.v1.RequestAuthentication",
        Kind::AuthorizationPolicy => "type.googleapis.com/lateen.mesh.v1.AuthorizationPolicy",
        Kind::Credential => "type.googleapis.com/lateen.mesh.v1.Credential",
        Kind::RateLimitPolicy => "type.googleapis.com/lateen.mesh.v1.RateLimitPolicy",
    }
}

/// The kind of a type URL; absent when it is none of Lateen's.
pub fn kind_of(url: &str) -> Option<Kind> {
    url.strip_prefix(PREFIX)?;
    Kind::ALL.into_iter().find(|kind| type_url(*kind) == url)
}

/// Why a resource cannot be decoded: one sentence with the resource, the field and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// Short type name, such as `RouteTable`.
    pub kind: String,
    /// The resource's name; empty when it could not be read.
    pub resource: String,
    /// Path of the field, such as `http[2].matches[0].uri`; empty when the bytes are no message at all.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if !self.resource.is_empty() {
            write!(f, " {}", self.resource)?;
        }
        if !self.field.is_empty() {
            write!(f, ", field {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The resource as bytes of its own message type.
pub fn encode(resource: &Resource) -> Bytes {
    let bytes = match resource {
        Resource::Service(v) => service::encode(v).encode_to_vec(),
        Resource::Workload(v) => workload::encode(v).encode_to_vec(),
        Resource::RouteTable(v) => route::encode(v).encode_to_vec(),
        Resource::TrafficPolicy(v) => traffic::encode(v).encode_to_vec(),
        Resource::Gateway(v) => gateway::encode(v).encode_to_vec(),
        Resource::SidecarScope(v) => scope::encode(v).encode_to_vec(),
        Resource::MeshSettings(v) => mesh::encode(v).encode_to_vec(),
        Resource::PeerAuthentication(v) => security::encode_peer(v).encode_to_vec(),
        Resource::RequestAuthentication(v) => security::encode_request(v).encode_to_vec(),
        Resource::AuthorizationPolicy(v) => policy::encode(v).encode_to_vec(),
        Resource::TrustBundle(v) => security::encode_bundle(v).encode_to_vec(),
        Resource::Credential(v) => security::encode_credential(v).encode_to_vec(),
        Resource::RateLimitPolicy(v) => limit::encode(v).encode_to_vec(),
    };
    bytes.into()
}

/// The resource that `bytes` of type `type_url` mean.
///
/// # Errors
/// The type is not known, the bytes are not a message of it, or a part is missing or means nothing.
pub fn decode(type_url: &str, bytes: &[u8]) -> Result<Resource, DecodeError> {
    let Some(kind) = kind_of(type_url) else {
        return Err(DecodeError {
            kind: type_url.to_owned(),
            resource: String::new(),
            field: String::new(),
            reason: "this version does not know the type: upgrade the proxy".to_owned(),
        });
    };
    match kind {
        Kind::Service => whole(kind, bytes, service::decode, service_name).map(Resource::Service),
        Kind::Workload => {
            let name = |m: &proto::Workload| m.uid.clone();
            whole(kind, bytes, workload::decode, name).map(Resource::Workload)
        }
        Kind::MeshSettings => {
            let name = |_: &proto::MeshSettings| "default".to_owned();
            whole(kind, bytes, mesh::decode, name).map(Resource::MeshSettings)
        }
        Kind::TrustBundle => {
            let name = |m: &proto::TrustBundle| m.trust_domain.clone();
            whole(kind, bytes, security::decode_bundle, name).map(Resource::TrustBundle)
        }
        Kind::RouteTable => object(kind, bytes, route::decode, Resource::RouteTable),
        Kind::TrafficPolicy => object(kind, bytes, traffic::decode, Resource::TrafficPolicy),
        Kind::Gateway => object(kind, bytes, gateway::decode, Resource::Gateway),
        Kind::SidecarScope => object(kind, bytes, scope::decode, Resource::SidecarScope),
        Kind::PeerAuthentication => object(
            kind,
            bytes,
            security::decode_peer,
            Resource::PeerAuthentication,
        ),
        Kind::RequestAuthentication => object(
            kind,
            bytes,
            security::decode_request,
            Resource::RequestAuthentication,
        ),
        Kind::AuthorizationPolicy => {
            object(kind, bytes, policy::decode, Resource::AuthorizationPolicy)
        }
        Kind::RateLimitPolicy => object(kind, bytes, limit::decode, Resource::RateLimitPolicy),
        Kind::Credential => object(
            kind,
            bytes,
            security::decode_credential,
            Resource::Credential,
        ),
    }
}

/// Messages of one object of the user, named by it.
trait OfObject: Message + Default {
    fn origin(&self) -> Option<&proto::Origin>;
}

macro_rules! of_object {
    ($($message:ident),*) => {
        $(impl OfObject for proto::$message {
            fn origin(&self) -> Option<&proto::Origin> {
                self.origin.as_ref()
            }
        })*
    };
}

of_object!(
    RouteTable,
    TrafficPolicy,
    Gateway,
    SidecarScope,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Credential,
    RateLimitPolicy
);

fn object<M: OfObject, T>(
    kind: Kind,
    bytes: &[u8],
    read: impl FnOnce(M) -> Result<T, parts::Bad>,
    resource: impl FnOnce(T) -> Resource,
) -> Result<Resource, DecodeError> {
    whole(kind, bytes, read, |m: &M| origin_name(m.origin())).map(resource)
}

fn whole<M: Message + Default, T>(
    kind: Kind,
    bytes: &[u8],
    read: impl FnOnce(M) -> Result<T, parts::Bad>,
    name: impl FnOnce(&M) -> String,
) -> Result<T, DecodeError> {
    let error = |resource: String, field: String, reason: String| DecodeError {
        kind: type_url(kind).trim_start_matches(PREFIX).to_owned(),
        resource,
        field,
        reason,
    };
    let message = M::decode(bytes)
        .map_err(|e| error(String::new(), String::new(), format!("not a message: {e}")))?;
    let name = name(&message);
    read(message).map_err(|bad| error(name, bad.field, bad.reason))
}

fn service_name(message: &proto::Service) -> String {
    let key = message.key.as_ref();
    key.map(|k| format!("{}/{}", k.namespace, k.hostname))
        .unwrap_or_default()
}

fn origin_name(origin: Option<&proto::Origin>) -> String {
    origin
        .filter(|o| !o.name.is_empty())
        .map(|o| format!("{}/{}", o.namespace, o.name))
        .unwrap_or_default()
}
