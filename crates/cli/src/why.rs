//! `lateen why`: what becomes of a call at both ends, and whose object decides, without sending anything.

use crate::args::{SimulateArgs, WhyArgs};
use crate::simulate::{Side, print};
use anyhow::Result;
use lateen_model::decide::authz::Verdict;
use lateen_model::decide::cluster::{Discovery, Endpoint};
use lateen_model::decide::plan::{ConnectionPlan, RequestPlan, TcpPlan};
use lateen_model::decide::simulate::{Caller, Simulation, sentence, simulate};
use lateen_model::identity::SpiffeId;

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
        files: args.files.clone(),
        connection: args.connection.clone(),
    };
    let client = Side::of_caller(&asked).await?;
    let request = client.call(&asked)?;
    client.print_from();
    if !client.has_proxy {
        println!(
            "  It has no proxy: calls go out as they are, without identity and without routes."
        );
    }
    let story = simulate(&client.snapshot, &request.borrow())?;
    print(&story);
    if let Some(refusal) = refusal(&story) {
        println!("Refused at the caller: {refusal}");
        return Ok(());
    }
    let Some(endpoint) = endpoint(&client, &story) else {
        println!("Sent, to an address outside the mesh: nothing here decides about it further.");
        return Ok(());
    };
    let workload = &endpoint.workload;
    println!("At pod {}/{}:", workload.namespace, workload.name);
    if !workload.has_sidecar {
        println!("  It has no proxy: whatever arrives is taken.\nSent.");
        return Ok(());
    }
    let identity = endpoint.identity.is_some() && client.has_proxy;
    let caller = Caller {
        identity: if identity {
            own_identity(&client)
        } else {
            None
        },
        address: client.scope.addresses.first().copied(),
        token: None,
    };
    let url = at_port(&asked.to, endpoint.address.port());
    let request = request.at_server(url, caller);
    let pod = (&*workload.namespace, &*workload.name);
    let server = Side::of_pod(client.cluster, pod, &asked.files).await?;
    let story = simulate(&server.snapshot, &request.borrow())?;
    print(&story);
    println!("{}", outcome(&story));
    Ok(())
}

/// The first endpoint that the call may go to.
fn endpoint(client: &Side, story: &Simulation) -> Option<Endpoint> {
    let chosen = match (&story.request, &story.connection) {
        (Some(RequestPlan::Forward(plan)), _) => plan.cluster.clone(),
        (
            None,
            ConnectionPlan::Tcp(TcpPlan::Forward { cluster, .. })
            | ConnectionPlan::Detect(TcpPlan::Forward { cluster, .. })
            | ConnectionPlan::Sni(TcpPlan::Forward { cluster, .. }),
        ) => cluster.clone(),
        _ => return None,
    };
    match &chosen.discovery {
        Discovery::Endpoints(list) => list.first().cloned(),
        Discovery::OriginalDestination => {
            let address = story.destination;
            let workload = client.snapshot.workload_at(address.ip())?.clone();
            Some(Endpoint {
                address,
                weight: 1,
                health: lateen_model::workload::Health::Ready,
                identity: client.snapshot.identity_at(address).map(|(id, _)| id),
                workload,
            })
        }
        Discovery::Dns(_) | Discovery::Fixed(_) => None,
    }
}

fn own_identity(client: &Side) -> Option<SpiffeId> {
    let scope = &client.scope;
    let domain = &client.snapshot.mesh().trust_domain;
    SpiffeId::of_account(domain, &scope.namespace, &scope.service_account).ok()
}

/// The URL with the port on which the endpoint listens.
fn at_port(url: &str, port: u16) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let host = match authority.rsplit_once(':') {
        Some((host, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    format!("{scheme}://{host}:{port}{path}")
}

fn refusal(story: &Simulation) -> Option<String> {
    match (&story.request, &story.connection) {
        (Some(RequestPlan::Refuse(fault)), _)
        | (None, ConnectionPlan::Tcp(TcpPlan::Refuse(fault))) => Some(sentence(fault)),
        _ => None,
    }
}

fn outcome(story: &Simulation) -> String {
    let verdict = story.ruling.as_ref().map(|ruling| &ruling.verdict);
    match (verdict, refusal(story)) {
        (Some(Verdict::Deny(_)), Some(why)) => format!("Refused: {why}"),
        (_, Some(why)) => format!("Refused: {why}"),
        (Some(Verdict::Ask(_)), None) => "Sent, if the external authorizer agrees.".to_owned(),
        (_, None) => "Sent, and taken by the application's proxy.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::at_port;

    #[test]
    fn the_server_is_asked_at_its_own_port() {
        for (url, want) in [
            ("reviews:9080/a", "http://reviews:8080/a"),
            ("http://reviews/a?b=1", "http://reviews:8080/a?b=1"),
            ("tcp://db.default:3306", "tcp://db.default:8080/"),
            ("http://[fd00::1]/x", "http://[fd00::1]:8080/x"),
        ] {
            assert_eq!(at_port(url, 8080), want);
        }
    }
}
