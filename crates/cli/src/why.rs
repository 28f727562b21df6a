//! `lateen why`: what becomes of a call at both ends, and whose object decides, without sending anything.

use crate::args::{SimulateArgs, WhyArgs};
use crate::simulate::{Request, Sender, Side};
use anyhow::Result;
use lateen_model::decide::cluster::{Cluster, ClusterTls, Discovery, Endpoint};
use lateen_model::decide::plan::{ConnectionPlan, RequestPlan, TcpPlan};
use lateen_model::decide::simulate::Simulation;
use lateen_model::decide::snapshot::Snapshot;
use lateen_model::identity::SpiffeId;
use std::sync::Arc;

/// Prints the story of a call and a last line with its outcome.
///
/// # Errors
/// A pod or the control plane is not there, or the URL makes no sense.
pub async fn run(args: &WhyArgs) -> Result<()> {
    let asked = SimulateArgs {
        from: args.from.clone(),
        to: args.to.clone(),
        method: args.method.clone(),
        headers: args.headers.clone(),
        token: args.token.clone(),
        files: args.files.clone(),
        connection: args.connection.clone(),
    };
    let client = Side::of_caller(&asked).await?;
    let mut request = client.call(&asked)?;
    client.print_from();
    if !client.has_proxy {
        println!(
            "  It has no proxy: calls go out as they are, without identity and without routes."
        );
    }
    let story = client.story(&mut request)?;
    story.print();
    if let Some(refusal) = &story.refused {
        println!("Refused at the caller: {refusal}");
        return Ok(());
    }
    let story = story.simulation;
    let Some(endpoint) = endpoint(&client.snapshot, &story) else {
        println!("{}", gone(&story));
        return Ok(());
    };
    let workload = &endpoint.workload;
    println!("At pod {}/{}:", workload.namespace, workload.name);
    if !workload.has_sidecar {
        println!("  It has no proxy: whatever arrives is taken.\nSent.");
        return Ok(());
    }
    let request = arriving(&client, &story, &endpoint, request);
    let pod = (&*workload.namespace, &*workload.name);
    let server = Side::of_pod(client.cluster, pod, &asked.files).await?;
    println!("{}", at_server(&server, request)?);
    Ok(())
}

/// The server's side of the story, printed but for its last line.
fn at_server(server: &Side, mut request: Request) -> Result<String> {
    let story = server.story(&mut request)?;
    story.print();
    Ok(story.outcome())
}

/// The call as it arrives at an endpoint.
fn arriving(client: &Side, story: &Simulation, endpoint: &Endpoint, request: Request) -> Request {
    let secure = endpoint.mutual && client.has_proxy;
    let name = cluster(story).and_then(|cluster| match &cluster.tls {
        ClusterTls::Mesh { server_name, .. } if !server_name.is_empty() => {
            Some(server_name.to_string())
        }
        _ => client
            .snapshot
            .identity_at(endpoint.address)
            .map(|(_, name)| name.to_string()),
    });
    let sender = Sender {
        identity: secure.then(|| own_identity(client)).flatten(),
        address: client.scope.addresses.first().copied(),
        server_name: name.filter(|_| secure).unwrap_or_default(),
    };
    let plan = match &story.request {
        Some(RequestPlan::Forward(plan)) => Some(&**plan),
        _ => None,
    };
    request.at_server(plan, endpoint.address.port(), sender)
}

/// What became of a call that goes to no workload of the mesh.
fn gone(story: &Simulation) -> &'static str {
    match &story.request {
        Some(RequestPlan::Redirect { .. } | RequestPlan::Direct { .. }) => {
            "Answered by the caller's proxy: nobody else hears of it."
        }
        _ => "Sent, to an address outside the mesh: nothing here decides about it further.",
    }
}

/// Where a simulated call goes.
fn cluster(story: &Simulation) -> Option<&Arc<Cluster>> {
    match (&story.request, &story.connection) {
        (Some(RequestPlan::Forward(plan)), _) => Some(&plan.cluster),
        (
            None,
            ConnectionPlan::Tcp(TcpPlan::Forward { cluster, .. })
            | ConnectionPlan::Detect(TcpPlan::Forward { cluster, .. })
            | ConnectionPlan::Sni(TcpPlan::Forward { cluster, .. })
            | ConnectionPlan::Tls(TcpPlan::Forward { cluster, .. }),
        ) => Some(cluster),
        _ => None,
    }
}

/// The first endpoint that the call may go to.
fn endpoint(snapshot: &Snapshot, story: &Simulation) -> Option<Endpoint> {
    match &cluster(story)?.discovery {
        Discovery::Endpoints(list) => list.first().cloned(),
        Discovery::OriginalDestination => {
            let address = story.destination;
            let workload = snapshot.workload_at(address.ip())?.clone();
            let known = snapshot.identity_at(address);
            Some(Endpoint {
                priority: 0,
                locality_weight: 0,
                address,
                weight: 1,
                health: lateen_model::workload::Health::Ready,
                mutual: known.is_some(),
                identity: known.and_then(|(id, _)| id),
                workload,
            })
        }
        Discovery::Dns(_)
        | Discovery::DnsFirst(_)
        | Discovery::DynamicDns(_)
        | Discovery::Fixed(_) => None,
    }
}

fn own_identity(client: &Side) -> Option<SpiffeId> {
    let scope = &client.scope;
    let domain = &client.snapshot.mesh().trust_domain;
    SpiffeId::of_account(domain, &scope.namespace, &scope.service_account).ok()
}
