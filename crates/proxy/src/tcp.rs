//! Connections that are copied byte for byte: called, counted, and accounted for at their end.

use crate::connection::Conn;
use crate::exchange::{Kind, Ledger, Open};
use crate::fault;
use crate::upstream::{Dialed, Failed};
use bytes::Bytes;
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{Direction, Fault, FaultReason, TcpPlan};
use lateen_model::name::Origin;
use lateen_net::copy::{Counts, both_ways, write_all};
use lateen_net::listen::reset_on_close;
use lateen_net::original::canonical;
use lateen_telemetry::metrics::TcpSeen;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// How often a connection that goes on adds its bytes to the metrics (Istio: 15 s).
const REPORT: Duration = Duration::from_secs(15);

/// Serves a connection by `plan`. `prefix` was already read from the client; `dialed` may be a connection that was
/// opened while the client was still silent.
pub(crate) async fn serve(
    conn: Conn,
    client: TcpStream,
    prefix: Bytes,
    plan: TcpPlan,
    dialed: Option<Dialed>,
) {
    let mut open = begin(&conn);
    match plan {
        TcpPlan::Refuse(fault) => {
            conn.worker.say(&fault, || fault::sentence(&fault, None));
            refuse(&mut open, &fault, None);
            if fault.reason == FaultReason::NotInRegistry {
                // Istio: connections that REGISTRY_ONLY refuses go to a cluster that has no endpoint.
                let live = conn.worker.shared.live.load();
                describe(&conn, &mut open, live.snapshot.black_hole());
                open.record.flags = "UH".into();
            }
            reset_on_close(&client);
        }
        TcpPlan::Forward { cluster, origin } => {
            describe(&conn, &mut open, &cluster);
            // The server name may have changed the plan since the call was made.
            let dialed = match dialed.filter(|d| d.cluster.name == cluster.name) {
                Some(dialed) => Ok(dialed),
                None => conn.worker.upstream.dial(&cluster, &conn.facts).await,
            };
            match dialed {
                Ok(dialed) => copy(&conn, &mut open, &client, &prefix, dialed).await,
                Err(failed) => {
                    unreachable(&conn, &mut open, &cluster, origin, &failed);
                    reset_on_close(&client);
                }
            }
        }
    }
}

fn begin(conn: &Conn) -> Open {
    let labels = &conn.worker.labels;
    let unknown = labels.peer(None);
    let kind = Kind::Tcp(TcpSeen::default());
    let direction = conn.facts.direction;
    let mut open = conn
        .worker
        .ledger
        .open(direction, kind, &unknown, labels.target(None, None));
    open.complete = true;
    open.record.local = Some(conn.local);
    open.record.remote = Some(conn.facts.source);
    open.record.server_name = conn.server_name.as_str().into();
    if direction == Direction::Inbound {
        let live = conn.worker.shared.live.load();
        open.source = labels.peer(live.snapshot.workload_at(conn.facts.source.ip()));
        open.destination = labels.own();
    } else {
        open.source = labels.own();
    }
    open
}

fn describe(conn: &Conn, open: &mut Open, cluster: &Arc<Cluster>) {
    open.record.cluster = cluster.name.clone();
    open.target = conn.worker.labels.target(Some(cluster), None);
}

fn refuse(open: &mut Open, fault: &Fault, failed: Option<&Failed>) {
    let verdict = fault::verdict(fault, failed);
    open.record.flags = verdict.flags;
    open.record.transport_failure = verdict.transport;
}

fn unreachable(
    conn: &Conn,
    open: &mut Open,
    cluster: &Cluster,
    origin: Option<Origin>,
    failed: &Failed,
) {
    let fault = Fault {
        reason: failed.reason,
        origin,
        subject: cluster.name.to_string(),
    };
    conn.worker
        .say(&fault, || fault::sentence(&fault, Some(failed)));
    refuse(open, &fault, Some(failed));
    open.record.upstream_host = failed.address;
    if conn.facts.direction != Direction::Inbound {
        open.destination = conn.worker.labels.peer(failed.workload.as_ref());
    }
}

async fn copy(conn: &Conn, open: &mut Open, client: &TcpStream, prefix: &Bytes, dialed: Dialed) {
    open.record.upstream_host = Some(dialed.address());
    open.record.upstream_local = dialed.stream.local_addr().ok().map(canonical);
    if conn.facts.direction != Direction::Inbound {
        open.destination = conn.worker.labels.peer(dialed.workload.as_ref());
    }
    let counts = Counts::default();
    let ledger = open.ledger();
    report(open, &ledger, &counts);
    let copying = async {
        write_all(&dialed.stream, prefix, &counts.forward).await?;
        both_ways(client, &dialed.stream, &counts).await
    };
    let mut copying = pin!(copying);
    let done = loop {
        tokio::select! {
            done = copying.as_mut() => break done,
            () = tokio::time::sleep(REPORT) => report(open, &ledger, &counts),
        }
    };
    if let Err(error) = done {
        tracing::debug!("copying to {} ended: {error}", dialed.address());
    }
    open.record.received = counts.forward.get();
    open.record.sent = counts.back.get();
}

// Adds what happened since the last report; the rest is added when the connection is over.
fn report(open: &mut Open, ledger: &Rc<Ledger>, counts: &Counts) {
    let Kind::Tcp(counted) = open.kind else {
        return;
    };
    let (received, sent) = (counts.forward.get(), counts.back.get());
    let seen = TcpSeen {
        opened: 1 - counted.opened,
        closed: 0,
        sent: sent - counted.sent,
        received: received - counted.received,
    };
    ledger.progress(open, seen);
    open.kind = Kind::Tcp(TcpSeen {
        opened: 1,
        closed: 0,
        sent,
        received,
    });
}
