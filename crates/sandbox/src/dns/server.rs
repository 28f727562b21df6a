//! Questions off the wire and answers onto it, within limits.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::forward::Forwarder;
use super::limit::Limit;
use super::zone::{Answer, View, Zone};
use crate::controllers::{Cluster, Key};

/// The longest question; longer ones are dropped. Real ones have less than 400 bytes.
const LONGEST_QUESTION: usize = 4096;
/// The longest answer by UDP, whatever the client offers, so that it fits any link.
const LONGEST_DATAGRAM: u16 = 1232;
/// TCP connections at a time.
const CONNECTIONS: usize = 128;
/// How long a TCP connection may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// Questions by UDP under way at a time; more are dropped, and asked again by the clients.
const AT_A_TIME: usize = 1024;

/// Serves one zone.
pub(super) struct Server {
    zone: Zone,
    view: Arc<dyn View + Send + Sync>,
    forwarder: Forwarder,
    limit: Mutex<Limit>,
}

impl Server {
    pub(super) fn new(
        zone: Zone,
        view: Arc<impl View + Send + Sync + 'static>,
        forwarder: Forwarder,
    ) -> Server {
        Server {
            zone,
            view,
            forwarder,
            limit: Mutex::default(),
        }
    }

    /// Serves until `shutdown`.
    pub(super) async fn serve(
        self: Arc<Self>,
        udp: UdpSocket,
        tcp: TcpListener,
        shutdown: CancellationToken,
    ) {
        let datagrams = self.clone().datagrams(Arc::new(udp));
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = datagrams => {}
            () = self.connections(tcp) => {}
        }
    }

    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let room = Arc::new(Semaphore::new(AT_A_TIME));
        let mut buffer = vec![0; LONGEST_QUESTION];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // An answer of ours bounced; that says nothing about the socket.
                    tracing::trace!(%error, "DNS receive");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                continue;
            };
            if !self.limit.lock().admit(client.ip(), Instant::now()) {
                continue;
            }
            let question = buffer[..length].to_vec();
            let (server, socket) = (self.clone(), socket.clone());
            tokio::spawn(async move {
                if let Some(answer) = server.respond(&question, false).await {
                    let _ = socket.send_to(&answer, client).await;
                }
                drop(permit);
            });
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "DNS accept");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(permit) = room.clone().try_acquire_owned() else {
                continue;
            };
            let server = self.clone();
            tokio::spawn(async move {
                let _ = server.connection(stream, client).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
        loop {
            let length = match timeout(IDLE, stream.read_u16()).await {
                Ok(length) => usize::from(length?),
                Err(_) => return Ok(()),
            };
            if length > LONGEST_QUESTION || !self.limit.lock().admit(client.ip(), Instant::now()) {
                return Ok(());
            }
            let mut question = vec![0; length];
            timeout(IDLE, stream.read_exact(&mut question)).await??;
            let Some(answer) = self.respond(&question, true).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let bytes = [&length.to_be_bytes(), answer.as_slice()].concat();
            timeout(IDLE, stream.write_all(&bytes)).await??;
        }
    }

    /// The answer in bytes; absent for what is no question at all.
    pub(super) async fn respond(&self, question: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let request = match Message::from_vec(question) {
            Ok(request) if request.metadata.message_type == MessageType::Query => request,
            Ok(_) => return None,
            Err(_) => {
                // The header can still be told: say that the rest cannot.
                let id = question
                    .get(..2)
                    .map(|id| u16::from_be_bytes([id[0], id[1]]))?;
                let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
                return error.to_vec().ok();
            }
        };
        let response = self.answer(&request, over_tcp).await;
        let bytes = response.to_vec().ok()?;
        let offered = request.edns.as_ref().map_or(512, Edns::max_payload);
        let most = if over_tcp {
            u16::MAX
        } else {
            offered.clamp(512, LONGEST_DATAGRAM)
        };
        if bytes.len() > usize::from(most) {
            return response.truncate().to_vec().ok();
        }
        Some(bytes)
    }

    async fn answer(&self, request: &Message, over_tcp: bool) -> Message {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.add_queries(request.queries.iter().cloned());
        if request.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(LONGEST_DATAGRAM);
            response.set_edns(edns);
        }
        let code = match request.queries.as_slice() {
            _ if request.metadata.op_code != OpCode::Query => ResponseCode::NotImp,
            [query] if query.query_class() == DNSClass::IN => {
                self.fill(&mut response, query, over_tcp).await
            }
            [_] => ResponseCode::Refused,
            _ => ResponseCode::FormErr,
        };
        response.metadata.response_code = code;
        response
    }

    async fn fill(&self, response: &mut Message, query: &Query, over_tcp: bool) -> ResponseCode {
        match self
            .zone
            .answer(&*self.view, query.name(), query.query_type())
        {
            Answer::Found(mut records) => {
                response.metadata.authoritative = true;
                if records.is_empty() {
                    response.add_authority(self.zone.authority());
                }
                // Clients that take the first address are spread by the order.
                fastrand::shuffle(&mut records);
                records.sort_by_key(|record| record.record_type() != RecordType::CNAME);
                response.add_answers(records);
                ResponseCode::NoError
            }
            Answer::NoName => {
                response.metadata.authoritative = true;
                response.add_authority(self.zone.authority());
                ResponseCode::NXDomain
            }
            Answer::Elsewhere(records, name) => {
                response.add_answers(records);
                let mut query = query.clone();
                query.set_name(name);
                let Some(answer) = self.forwarder.ask(&query, over_tcp).await else {
                    return ResponseCode::ServFail;
                };
                response.metadata.truncation = answer.metadata.truncation;
                response.add_answers(answer.answers);
                response.add_authorities(answer.authorities);
                answer.metadata.response_code
            }
        }
    }
}

impl View for Cluster {
    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.find(&Key::new("", namespace)).is_some()
    }

    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.find(&Key::new(namespace, name))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.slices.within(namespace);
        slices.retain(|slice| {
            slice
                .labels()
                .get("kubernetes.io/service-name")
                .is_some_and(|name| name == service)
        });
        slices
    }

    fn has_pod(&self, namespace: &str, address: IpAddr) -> bool {
        let text = address.to_string();
        let has = |ip: &Option<String>| ip.as_deref() == Some(&*text);
        let pods = self.pods.within(namespace);
        pods.iter().any(|pod| {
            pod.status
                .as_ref()
                .is_some_and(|status| has(&status.pod_ip))
        })
    }

    fn service_at(&self, address: IpAddr) -> Option<Arc<Service>> {
        let text = address.to_string();
        self.services.all().into_iter().find(|service| {
            let spec = service.spec.as_ref();
            spec.is_some_and(|spec| {
                let mut all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
                all.any(|ip| *ip == text)
            })
        })
    }

    fn slices_at(&self, address: IpAddr) -> Vec<Arc<EndpointSlice>> {
        let text = address.to_string();
        let mut slices = self.slices.all();
        slices.retain(|slice| {
            slice
                .endpoints
                .iter()
                .any(|one| one.addresses.contains(&text))
        });
        slices
    }
}
