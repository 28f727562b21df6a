//! External authorization: a provider is asked about a request, or about a connection that is not HTTP, over the mesh's
//! own way out.

mod grpc;
pub(crate) mod quota;

use crate::authorize::{Asked, Refusal};
use crate::connection::Conn;
use crate::head;
use crate::upstream::{Bound, Lease, Order, Replay};
use crate::worker::Worker;
use bytes::Bytes;
use http::{HeaderMap, request};
use http_body_util::{BodyExt, Limited};
use lateen_filters::external::{Allowance, Answer, Excerpt, Fingerprint, HttpProvider, lifetime};
use lateen_model::decide::authz::Question;
use lateen_model::decide::cluster::Cluster;
use lateen_model::decide::plan::{ConnectionFacts, Direction, Fault, FaultReason, ForwardPlan};
use lateen_model::mesh::{AuthzBody, AuthzProtocol, AuthzProvider};
use lateen_model::route::RetryPolicy;
use lateen_net::http::{Incoming, Version};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a provider's answer.
const LARGEST_ANSWER: usize = 64 * 1024;

/// How long a client may take to send the part of its body that a provider wants to see.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// A provider could not be asked; the text is part of a sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Unavailable(String);

/// What a provider said, and for how long it says the same.
type Said = (Answer, Duration);

/// Asks one provider. One that cannot be asked has nothing against it where its settings say so (`failOpen`).
pub(crate) async fn ask(asked: &Asked<'_>, question: &Question) -> Result<Rc<Answer>, Refusal> {
    let provider = &question.provider;
    let body = match provider.body {
        Some(wanted) => Some(excerpt(asked, question, wanted).await?),
        None => None,
    };
    match answer(asked, provider, body.as_ref()).await {
        Ok(answer) => match &*answer {
            Answer::Allow(_) => Ok(answer),
            Answer::Deny(refusal) => Err(Refusal {
                fault: fault(question, FaultReason::AuthzRefused, &provider.name),
                status: refusal.status,
                headers: refusal.headers.clone(),
                body: refusal.body.clone().into(),
                details: "ext_authz_denied".to_owned(),
            }),
        },
        Err(why) => {
            let fault = unavailable(question, &why);
            if provider.fail_open {
                let worker = &asked.conn.worker;
                worker.say(&fault, || {
                    format!("{}; the request passes, as failOpen says", fault.subject)
                });
                return Ok(Rc::new(Answer::Allow(Allowance::default())));
            }
            Err(Refusal {
                fault,
                status: provider.status_on_error,
                headers: Vec::new(),
                body: Bytes::new(),
                details: "ext_authz_error".to_owned(),
            })
        }
    }
}

/// Asks one provider about a connection that is not HTTP. Its answer is not kept.
///
/// # Errors
/// It says no, or cannot be asked and has to be.
pub(crate) async fn admit(conn: &Conn, question: &Question) -> Result<(), Box<Fault>> {
    let provider = &question.provider;
    match verdict(conn, provider).await {
        Ok(Answer::Allow(_)) => Ok(()),
        Ok(Answer::Deny(_)) => Err(fault(question, FaultReason::AuthzRefused, &provider.name)),
        Err(why) => {
            let fault = unavailable(question, &why);
            if !provider.fail_open {
                return Err(fault);
            }
            conn.worker.say(&fault, || {
                format!("{}; the connection passes, as failOpen says", fault.subject)
            });
            Ok(())
        }
    }
}

async fn verdict(conn: &Conn, provider: &AuthzProvider) -> Result<Answer, Unavailable> {
    let way = Way::to(conn, provider)?;
    let asking = grpc::ask(&way, grpc::about_bytes(conn));
    let (answer, _) = tokio::time::timeout(provider.timeout, asking)
        .await
        .map_err(|_| late())??;
    Ok(answer)
}

fn late() -> Unavailable {
    Unavailable("it did not answer in time".to_owned())
}

fn unavailable(question: &Question, why: &Unavailable) -> Box<Fault> {
    let AuthzProvider {
        name, host, port, ..
    } = &*question.provider;
    let subject = format!("{name} at {host}:{port}: {why}");
    fault(question, FaultReason::AuthzUnavailable, &subject)
}

fn fault(question: &Question, reason: FaultReason, subject: &str) -> Box<Fault> {
    Box::new(Fault {
        reason,
        origin: Some(question.matched.policy.clone()),
        subject: subject.to_owned(),
    })
}

/// The part of the body that the provider wants.
async fn excerpt(
    asked: &Asked<'_>,
    question: &Question,
    wanted: AuthzBody,
) -> Result<Excerpt<Bytes>, Refusal> {
    let most = wanted.max_bytes as usize;
    let too_large = || Refusal {
        fault: fault(
            question,
            FaultReason::BodyTooLarge,
            &format!(
                "a body of more than {most} bytes, which {} has to see",
                question.provider.name
            ),
        ),
        status: 413,
        headers: Vec::new(),
        body: Bytes::from_static(b"Payload Too Large"),
        details: "request_payload_too_large".to_owned(),
    };
    if !wanted.allow_partial && asked.body.length().is_some_and(|l| l > most as u64) {
        return Err(too_large());
    }
    let reading = tokio::time::timeout(BODY_PATIENCE, asked.body.beginning(most)).await;
    let Ok(Ok(beginning)) = reading else {
        return Err(Refusal {
            fault: fault(
                question,
                FaultReason::BadRequest,
                "a body that does not come",
            ),
            status: 408,
            headers: Vec::new(),
            body: Bytes::from_static(b"Request Timeout"),
            details: "request_overall_timeout".to_owned(),
        });
    };
    if !beginning.whole && !wanted.allow_partial {
        return Err(too_large());
    }
    Ok(Excerpt {
        bytes: beginning.bytes,
        whole: beginning.whole,
    })
}

async fn answer(
    asked: &Asked<'_>,
    provider: &AuthzProvider,
    body: Option<&Excerpt<Bytes>>,
) -> Result<Rc<Answer>, Unavailable> {
    let decisions = &asked.conn.worker.guard.decisions;
    let check = Check::new(asked, provider, body)?;
    let print = check.fingerprint();
    if let Some(kept) = decisions.borrow().find(&print, std::time::Instant::now()) {
        return Ok(kept);
    }
    let saying = check.ask();
    let (answer, life) = tokio::time::timeout(provider.timeout, saying)
        .await
        .map_err(|_| late())??;
    let answer = Rc::new(answer);
    decisions
        .borrow_mut()
        .keep(print, &answer, life, std::time::Instant::now());
    Ok(answer)
}

/// One check, ready to be sent.
struct Check<'a> {
    provider: &'a AuthzProvider,
    way: Way,
    message: Message<'a>,
    body: Option<&'a Excerpt<Bytes>>,
}

enum Message<'a> {
    Http(HttpProvider<'a>, Box<request::Parts>),
    Grpc(Box<lateen_proto::authorization::CheckRequest>),
}

impl<'a> Check<'a> {
    fn new(
        asked: &'a Asked<'a>,
        provider: &'a AuthzProvider,
        body: Option<&'a Excerpt<Bytes>>,
    ) -> Result<Self, Unavailable> {
        let way = Way::to(asked.conn, provider)?;
        let message = match &provider.protocol {
            AuthzProtocol::Grpc => Message::Grpc(Box::new(grpc::request(asked, provider, body))),
            AuthzProtocol::Http {
                path_prefix,
                request_headers,
                additional_headers,
                upstream_on_allow,
                downstream_on_deny,
                downstream_on_allow,
            } => {
                let settings = HttpProvider {
                    path_prefix,
                    request_headers,
                    additional_headers,
                    upstream_on_allow,
                    downstream_on_deny,
                    downstream_on_allow,
                };
                let path = head::path(asked.head);
                let check = settings.check(asked.head, asked.authority, path, body);
                let check =
                    check.ok_or_else(|| Unavailable("its pathPrefix makes no path".to_owned()))?;
                Message::Http(settings, Box::new(check))
            }
        };
        Ok(Self {
            provider,
            way,
            message,
            body,
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        // All of the provider's settings: an answer is not kept beyond a change of whom, or how, it was asked.
        let provider = format!("{:?}", self.provider);
        let mut parts: Vec<&[u8]> = vec![provider.as_bytes()];
        if let Some(body) = self.body {
            parts.extend([&body.bytes[..], if body.whole { b"+" } else { b"-" }]);
        }
        match &self.message {
            Message::Http(_, check) => {
                parts.push(check.method.as_str().as_bytes());
                parts.push(head::path(check).as_bytes());
                for (name, value) in &check.headers {
                    parts.extend([name.as_str().as_bytes(), value.as_bytes()]);
                }
                Fingerprint::of(parts)
            }
            Message::Grpc(check) => grpc::fingerprint(check, parts),
        }
    }

    async fn ask(self) -> Result<Said, Unavailable> {
        let way = self.way;
        match self.message {
            Message::Grpc(check) => grpc::ask(&way, *check).await,
            Message::Http(settings, check) => {
                let body = self.body.map(|b| b.bytes.clone()).unwrap_or_default();
                let (response, lease) = way.send(*check, body, false).await?;
                let (head, body) = response.into_parts();
                let body = whole(body).await?;
                lease.finish();
                let life = lifetime(&head.headers);
                let status = head.status.as_u16();
                let answer = settings.answer(status, &head.headers, body.into());
                let answer = answer.ok_or_else(|| Unavailable(format!("it answered {status}")))?;
                Ok((answer, life))
            }
        }
    }
}

async fn whole(body: Incoming) -> Result<Bytes, Unavailable> {
    let collected = Limited::new(body, LARGEST_ANSWER).collect().await;
    let collected = collected.map_err(|error| Unavailable(format!("its answer broke: {error}")))?;
    Ok(collected.to_bytes())
}

/// The way to a provider.
struct Way {
    worker: Rc<Worker>,
    facts: ConnectionFacts,
    cluster: Arc<Cluster>,
    patience: Duration,
}

impl Way {
    fn to(conn: &Conn, provider: &AuthzProvider) -> Result<Self, Unavailable> {
        let place = (&*provider.host, provider.port);
        Self::at(&conn.worker, conn.facts, place, provider.timeout)
    }

    /// The way to a host and port of the mesh.
    fn at(
        worker: &Rc<Worker>,
        facts: ConnectionFacts,
        (host, port): (&str, u16),
        timeout: Duration,
    ) -> Result<Self, Unavailable> {
        let name = format!("outbound|{port}||{host}");
        let live = worker.shared.live.load();
        let cluster = live.snapshot.cluster(&name).map(Arc::clone);
        let cluster = cluster.ok_or_else(|| {
            Unavailable("no such service and port is known to this proxy".to_owned())
        })?;
        Ok(Self {
            worker: Rc::clone(worker),
            facts,
            cluster,
            patience: timeout,
        })
    }

    async fn send(
        &self,
        head: request::Parts,
        body: Bytes,
        grpc: bool,
    ) -> Result<(http::Response<Incoming>, Lease), Unavailable> {
        let retries = Arc::new(RetryPolicy::none());
        let plan = ForwardPlan::to(Arc::clone(&self.cluster), retries);
        let body = Replay::full(body);
        let deadline = Bound::after(&body, self.patience);
        // A check goes out, whichever way the request goes.
        let facts = ConnectionFacts {
            direction: Direction::Outbound,
            ..self.facts
        };
        let order = Order {
            plan: &plan,
            facts: &facts,
            version: if grpc { Version::Http2 } else { Version::Http1 },
            head: &head,
            body: &body,
            deadline: Some(&deadline),
            grpc,
            upgrade: false,
        };
        match self.worker.upstream.send(&order).await {
            Ok(sent) => Ok((sent.response, sent.lease)),
            Err(failed) => Err(Unavailable(crate::fault::cause(&failed))),
        }
    }
}

/// A header's values as one text.
fn joined(headers: &HeaderMap, name: &http::HeaderName) -> String {
    let separator: &[u8] = if *name == http::header::COOKIE {
        b"; "
    } else {
        b","
    };
    let values: Vec<&[u8]> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
    String::from_utf8_lossy(&values.join(separator)).into_owned()
}
