//! What the fuzz target of HTTP/1 sees of framing and of the engine behind it. It is not in ordinary builds, and adds
//! nothing of its own.

use super::Violation;
use super::framing::{Asked, Framing, Side, Stop};

/// What is read from one end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Messages {
    /// What a client sends.
    Requests,
    /// What a server answers to ordinary requests.
    Responses,
    /// What a server answers to HEAD.
    ResponsesToHead,
    /// What a server answers to CONNECT.
    ResponsesToConnect,
}

/// Why the rest of the bytes may not be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Nobody knows whose they are before [`Reader::release`].
    Held,
    /// They could be read in two ways.
    Bad {
        /// The sentence.
        why: &'static str,
        /// Whether a head was expected or open.
        in_head: bool,
    },
}

/// Follows the messages of one direction of a connection.
#[derive(Debug)]
pub struct Reader(Framing);

impl Reader {
    /// At the beginning of a connection.
    pub fn new(messages: Messages) -> Self {
        let (side, asked) = match messages {
            Messages::Requests => (Side::Requests, Asked::Other),
            Messages::Responses => (Side::Responses, Asked::Other),
            Messages::ResponsesToHead => (Side::Responses, Asked::Head),
            Messages::ResponsesToConnect => (Side::Responses, Asked::Connect),
        };
        let mut framing = Framing::new(side);
        framing.asked = asked;
        Self(framing)
    }

    /// Looks at the next bytes: how many of them are good, and why the rest is not.
    pub fn look(&mut self, bytes: &[u8]) -> (usize, Option<Stopped>) {
        let look = self.0.look(bytes);
        let stopped = look.stop.map(|stop| match stop {
            Stop::Hold => Stopped::Held,
            Stop::Bad { why, in_head } => {
                let why = match why {
                    Violation::Framing(why) => why,
                    _ => "something else than framing",
                };
                Stopped::Bad { why, in_head }
            }
        });
        (look.good, stopped)
    }

    /// How many heads of requests were whole.
    pub fn heads(&self) -> u64 {
        self.0.heads()
    }

    /// Whether a head has begun that is not whole.
    pub fn is_in_head(&self) -> bool {
        self.0.is_in_head()
    }

    /// The request that held the rest was answered; the protocol is another one now, or not.
    pub fn release(&mut self, switched: bool) {
        self.0.release(switched);
    }
}

/// How many requests the engine finds in bytes that are good; absent: there is one that it refuses, as too large for
/// example. It stops behind CONNECT, as nothing can follow its refusal.
pub fn requests(bytes: &[u8]) -> Option<u64> {
    super::h1::requests(bytes)
}
