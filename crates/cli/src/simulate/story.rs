//! What becomes of a call at one proxy, as sentences, and how it ends there.

use super::request::Request;
use lateen_model::decide::authz::Verdict;
use lateen_model::decide::plan::{ConnectionPlan, RequestPlan, TcpPlan};
use lateen_model::decide::simulate::{BadUrl, Simulation, sentence, simulate};
use lateen_model::decide::snapshot::Snapshot;

/// A simulation, with what filters have to say.
pub struct Story {
    /// The decisions.
    pub simulation: Simulation,
    /// Sentences about the caller.
    pub notes: Vec<String>,
    /// Why the call ends here; absent: it goes on.
    pub refused: Option<String>,
}

impl Story {
    /// What becomes of a call at the proxy of `snapshot`. What the proxy learns of the caller, and how it changes the
    /// call by that, is put into `request`.
    ///
    /// # Errors
    /// The URL makes no sense.
    pub fn of(snapshot: &Snapshot, request: &mut Request) -> Result<Self, BadUrl> {
        let received = request.received_by(snapshot);
        let simulation = simulate(snapshot, &request.borrow())?;
        // A token concerns nothing but HTTP.
        let is_http = simulation.request.is_some();
        let token = received.refused.filter(|_| is_http);
        let refused = match (&simulation.request, &simulation.connection) {
            _ if token.is_some() => token.as_ref().map(sentence),
            (Some(RequestPlan::Refuse(fault)), _)
            | (None, ConnectionPlan::Tcp(TcpPlan::Refuse(fault))) => Some(sentence(fault)),
            _ => None,
        };
        Ok(Self {
            notes: if is_http { received.notes } else { Vec::new() },
            refused,
            simulation,
        })
    }

    /// Prints the steps.
    pub fn print(&self) {
        for step in self.notes.iter().chain(&self.simulation.steps) {
            println!("  {step}");
        }
        for choice in &self.simulation.choices {
            println!("  {:.0}% → {}", choice.percent, choice.cluster);
            for endpoint in &choice.endpoints {
                println!("         {endpoint}");
            }
            if let Some(problem) = &choice.problem {
                println!("         cannot be used: {problem}");
            }
        }
    }

    /// How the call ends at its server.
    pub fn outcome(&self) -> String {
        let verdict = self.simulation.ruling.as_ref().map(|r| &r.verdict);
        match (&self.refused, verdict) {
            (Some(why), _) => format!("Refused: {why}"),
            (None, Some(Verdict::Ask(_))) => "Sent, if the external authorizer agrees.".to_owned(),
            (None, _) => "Sent, and taken by the application's proxy.".to_owned(),
        }
    }
}
