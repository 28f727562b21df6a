//! gRPC's messages on a stream, in pieces: a response leaves as it is encoded and a request goes once it is decoded, so
//! that a stream that has nothing to say keeps no buffer, however large its largest message was.
//!
//! ```text
//! request body --Requests--> messages --> Stream --> responses --Answers--> response body
//! ```

use super::Answer;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame};
use lateen_proto::discovery::{DeltaDiscoveryResponse, Resource};
use prost::Message as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tonic::Status;
use tonic::body::Body;

/// Bytes of a response that leave at once; a larger resource leaves whole.
const PIECE: usize = 32 << 10;

/// What stands before every message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Field of [`DeltaDiscoveryResponse`] that holds resources.
const RESOURCES: u32 = 2;

/// The responses of one stream, as the body of its HTTP response.
#[derive(Debug)]
pub(super) struct Answers {
    responses: mpsc::Receiver<Answer>,
    /// What of the response under way has not left.
    rest: std::vec::IntoIter<Resource>,
    /// How the stream ends; absent: it has not, or that has been told.
    end: Option<Status>,
    has_ended: bool,
}

impl Answers {
    pub fn new(responses: mpsc::Receiver<Answer>) -> Self {
        Self {
            responses,
            rest: Vec::new().into_iter(),
            end: None,
            has_ended: false,
        }
    }

    /// Begins a response: everything but its resources.
    fn begin(&mut self, mut response: DeltaDiscoveryResponse, piece: &mut BytesMut) {
        let size = response.encoded_len();
        piece.reserve(PREFIX + size.min(PIECE));
        piece.extend_from_slice(&[0]);
        // Messages are bounded far below 4 GiB.
        piece.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
        self.rest = std::mem::take(&mut response.resources).into_iter();
        // Fields may stand in any order; memory is there.
        let _ = response.encode(piece);
    }

    /// Adds resources of the response under way until the piece is full.
    fn go_on(&mut self, piece: &mut BytesMut) {
        while piece.len() < PIECE
            && let Some(resource) = self.rest.next()
        {
            prost::encoding::message::encode(RESOURCES, &resource, piece);
        }
        if self.rest.len() == 0 {
            // It would keep the room of the list.
            self.rest = Vec::new().into_iter();
        }
    }
}

impl http_body::Body for Answers {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let mut piece = BytesMut::new();
        while piece.len() < PIECE && this.end.is_none() && !this.has_ended {
            this.go_on(&mut piece);
            if piece.len() >= PIECE {
                break;
            }
            match this.responses.poll_recv(cx) {
                Poll::Ready(Some(Ok(response))) => this.begin(response, &mut piece),
                Poll::Ready(Some(Err(status))) => this.end = Some(status),
                Poll::Ready(None) => this.end = Some(Status::ok("")),
                Poll::Pending if piece.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !piece.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(piece.freeze()))));
        }
        this.has_ended = true;
        Poll::Ready(this.end.take().map(|status| {
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            Ok(Frame::trailers(trailers))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended
    }
}

/// The requests of one stream, from the body of its HTTP request.
#[derive(Debug)]
pub(super) struct Requests {
    body: Body,
    /// What came and is not a whole message yet.
    held: BytesMut,
    /// Largest message taken.
    most: usize,
}

impl Requests {
    pub fn new(body: Body, most: usize) -> Self {
        Self {
            body,
            held: BytesMut::new(),
            most,
        }
    }

    /// The next message; none: the client says nothing more. Dropped while it waits, it loses nothing.
    ///
    /// # Errors
    /// The connection broke, or what came is no message.
    pub async fn message<M: prost::Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.decode()? {
                return Ok(Some(message));
            }
            let frame = std::future::poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx));
            let Some(frame) = frame.await else {
                return match self.held.is_empty() {
                    true => Ok(None),
                    false => Err(Status::internal("the stream ends within a message")),
                };
            };
            if let Ok(data) = frame?.into_data() {
                self.take(data);
            }
        }
    }

    fn take(&mut self, data: Bytes) {
        self.held.extend_from_slice(&data);
        // Once its length is known, a message is given its room at once.
        if let Some(size) = self.size() {
            let whole = PREFIX + size.min(self.most);
            self.held.reserve(whole.saturating_sub(self.held.len()));
        }
    }

    /// Length of the next message; absent: too little came.
    fn size(&self) -> Option<usize> {
        let length = self.held.get(1..PREFIX)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(length)).ok()
    }

    fn decode<M: prost::Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some(size) = self.size() else {
            return Ok(None);
        };
        if self.held.first() != Some(&0) {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        if size > self.most {
            return Err(Status::out_of_range(format!(
                "a message of {size} bytes is larger than {}",
                self.most
            )));
        }
        if self.held.len() < PREFIX + size {
            return Ok(None);
        }
        let message = M::decode(&self.held[PREFIX..PREFIX + size]);
        let rest = &self.held[PREFIX + size..];
        // What is left is copied, so that the room of a large message is given back.
        self.held = BytesMut::from(rest);
        let message = message.map_err(|e| Status::internal(format!("not a message: {e}")))?;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
