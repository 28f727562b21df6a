//! One proxy's stream: asks for all that it is to be told of, and acknowledges every response.

use super::count::{Counted, Shared};
use super::{Known, Shape, Versions};
use crate::mesh;
use anyhow::Result;
use hyper_util::rt::TokioIo;
use lateen_model::resource::Kind;
use lateen_proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use lateen_proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node, Struct, Value, value,
};
use lateen_xds::codec::{LOOKUP, kind_of, type_url};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::Endpoint;

/// Proxies that share a source address: the control plane bounds connections of one.
const OF_ADDRESS: usize = 200;
/// Services that all proxies use, when they are told on demand.
pub const SHARED: usize = 10;
/// Wait before a lost stream is opened again.
const AGAIN: Duration = Duration::from_millis(200);

/// One proxy.
pub(super) struct Proxy {
    pub number: usize,
    pub shape: Shape,
    pub address: SocketAddr,
    pub known: Arc<Known>,
    pub shared: Arc<Shared>,
    pub arrived: mpsc::UnboundedSender<Instant>,
}

impl Proxy {
    /// Keeps a stream until it is dropped.
    pub(super) async fn run(self) {
        let mut synced = false;
        loop {
            let ended = self.stream(&mut synced).await;
            if self.shared.lost.fetch_add(1, Ordering::Relaxed) == 0
                && let Err(error) = ended
            {
                eprintln!("a proxy's stream was lost: {error:#}");
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn stream(&self, synced: &mut bool) -> Result<()> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let group = u8::try_from(self.number / OF_ADDRESS).unwrap_or(u8::MAX);
        let connector = Connector {
            source: Ipv4Addr::new(127, 0, 0, 2 + group),
            address: self.address,
            bytes: Arc::clone(&self.shared.bytes),
        };
        let channel = endpoint.connect_with_connector(connector).await?;
        let mut service =
            AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(16 << 20);
        let (requests, receiver) = mpsc::channel(Kind::ALL.len() + 4);
        let opening = self.opening();
        let opened = service.delta_aggregated_resources(ReceiverStream::new(receiver));
        let send = async {
            for request in opening {
                requests.send(request).await?;
            }
            anyhow::Ok(())
        };
        let (opened, sent) = tokio::join!(opened, send);
        sent?;
        let mut responses = opened?.into_inner();
        let mut whole = BTreeSet::new();
        while let Some(response) = responses.message().await? {
            let reply = self.take(response, &mut whole);
            requests.send(reply).await?;
            if whole.len() == Kind::ALL.len() && !std::mem::replace(synced, true) {
                self.shared.synced.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Services that this proxy uses: some that all use, the rest its own.
    fn used(&self, count: usize) -> impl Iterator<Item = usize> {
        let Shape { services, .. } = self.shape;
        let number = self.number;
        (0..count).map(move |at| match at < SHARED {
            true => at % services,
            false => (number * 31 + at * 101) % services,
        })
    }

    /// What this proxy has of a kind.
    fn versions(&self, kind: Kind) -> BTreeMap<String, String> {
        let own: Option<&Versions> = self.known.get(&self.number).or_else(|| self.known.get(&0));
        let of_kind = own.and_then(|versions| versions.get(&kind));
        of_kind.cloned().unwrap_or_default()
    }

    /// The requests that open the stream, each made when it is sent.
    fn opening(&self) -> impl Iterator<Item = DeltaDiscoveryRequest> {
        let lookups = self.shape.uses.map(|count| DeltaDiscoveryRequest {
            node: Some(self.node()),
            type_url: LOOKUP.to_owned(),
            resource_names_subscribe: self.used(count).map(lookup).collect(),
            ..DeltaDiscoveryRequest::default()
        });
        let is_first = lookups.is_none();
        let kinds = Kind::ALL.into_iter().enumerate();
        let kinds = kinds.map(move |(at, kind)| DeltaDiscoveryRequest {
            node: (at == 0 && is_first).then(|| self.node()),
            type_url: type_url(kind).to_owned(),
            resource_names_subscribe: vec!["*".to_owned()],
            initial_resource_versions: self.versions(kind),
            ..DeltaDiscoveryRequest::default()
        });
        lookups.into_iter().chain(kinds)
    }

    fn node(&self) -> Node {
        let (name, namespace) = (
            mesh::service_name(self.number),
            mesh::namespace(self.number),
        );
        let text = |text: &str| Value {
            kind: Some(value::Kind::StringValue(text.to_owned())),
        };
        let labels = Struct {
            fields: [
                ("app".to_owned(), text(&name)),
                ("version".to_owned(), text("v1")),
            ]
            .into(),
        };
        let labels = Value {
            kind: Some(value::Kind::StructValue(labels)),
        };
        let pod = format!("{name}-0");
        let fields = [
            ("NAME", text(&pod)),
            ("NAMESPACE", text(&namespace)),
            ("INSTANCE_IPS", text("10.255.0.1")),
            ("SERVICE_ACCOUNT", text(&name)),
            ("WORKLOAD_NAME", text(&name)),
            ("CANONICAL_NAME", text(&name)),
            ("CLUSTER_ID", text("Kubernetes")),
            ("DOMAIN", text("cluster.local")),
            ("ISTIO_VERSION", text("bench")),
            ("LABELS", labels),
        ];
        let on_demand = self.shape.uses.map(|_| ("ON_DEMAND", text("true")));
        let fields = fields.into_iter().chain(on_demand);
        let fields = fields.map(|(key, value)| (key.to_owned(), value));
        Node {
            id: format!("sidecar~10.255.0.1~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            cluster: format!("{name}.{namespace}"),
            metadata: Some(Struct {
                fields: fields.collect(),
            }),
        }
    }

    /// Counts a response; the acknowledgement.
    fn take(
        &self,
        response: DeltaDiscoveryResponse,
        whole: &mut BTreeSet<Kind>,
    ) -> DeltaDiscoveryRequest {
        let now = Instant::now();
        let shared = &self.shared;
        let kind = kind_of(&response.type_url);
        if kind == Some(Kind::RouteTable) {
            let watched = shared.watched.lock();
            if response.resources.iter().any(|r| r.name == *watched) {
                let _ = self.arrived.send(now);
            }
        }
        let size = |r: &lateen_proto::discovery::Resource| {
            r.name.len() + r.version.len() + r.resource.as_ref().map_or(0, |any| any.value.len())
        };
        let size: usize = response.resources.iter().map(size).sum();
        let add = |count: &AtomicU64, more: usize| count.fetch_add(more as u64, Ordering::Relaxed);
        add(&shared.resources, response.resources.len());
        add(&shared.removed, response.removed_resources.len());
        add(&shared.messages, 1);
        shared.largest.fetch_max(size as u64, Ordering::Relaxed);
        if let Some(kind) = kind {
            if !response.system_version_info.ends_with('+') {
                whole.insert(kind);
            }
            if self.number == 0 || self.shape.uses.is_some() {
                let mut versions = shared.versions.lock();
                let own = versions.entry(self.number).or_default();
                let known = own.entry(kind).or_default();
                for name in &response.removed_resources {
                    known.remove(name);
                }
                known.extend(response.resources.into_iter().map(|r| (r.name, r.version)));
            }
        }
        DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        }
    }
}

/// Connects from an address of one's own.
struct Connector {
    source: Ipv4Addr,
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (source, address, bytes) = (self.source, self.address, Arc::clone(&self.bytes));
        Box::pin(async move {
            let socket = TcpSocket::new_v4()?;
            socket.set_nodelay(true)?;
            socket.bind((source, 0).into())?;
            let stream = socket.connect(address).await?;
            Ok(TokioIo::new(Counted { stream, bytes }))
        })
    }
}

/// The question after a service of the mesh.
fn lookup(service: usize) -> String {
    let (name, namespace) = (mesh::service_name(service), mesh::namespace(service));
    format!("host/{name}.{namespace}.svc.cluster.local")
}
