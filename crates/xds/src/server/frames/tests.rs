//! What leaves in pieces is what would leave whole, and what comes in pieces is understood.

use super::*;
use lateen_proto::discovery::{Any, DeltaDiscoveryRequest};
use std::collections::VecDeque;
use std::convert::Infallible;
use tonic::Code;

/// A body that is these pieces.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }
}

fn response(sizes: &[usize]) -> DeltaDiscoveryResponse {
    let resource = |(at, size): (usize, &usize)| Resource {
        version: at.to_string(),
        name: format!("a/{at}"),
        resource: Some(Any {
            type_url: "type".to_owned(),
            value: vec![7; *size].into(),
        }),
    };
    DeltaDiscoveryResponse {
        system_version_info: "3".to_owned(),
        resources: sizes.iter().enumerate().map(resource).collect(),
        type_url: "type".to_owned(),
        nonce: "1".to_owned(),
        removed_resources: vec!["a/gone".to_owned()],
    }
}

/// Everything that a body gives: pieces, then trailers.
async fn all(
    mut body: impl http_body::Body<Data = Bytes, Error = Status> + Unpin,
) -> Vec<Frame<Bytes>> {
    let mut frames = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        frames.push(frame.expect("no error"));
    }
    frames
}

#[tokio::test]
async fn a_response_in_pieces_is_the_response() {
    let sent = [
        response(&[]),
        response(&[10; 5000]),
        response(&[3 * PIECE, 1, PIECE]),
        response(&[2]),
    ];
    let (sender, receiver) = mpsc::channel(8);
    for response in &sent {
        sender.send(Ok(response.clone())).await.expect("room");
    }
    drop(sender);
    let mut frames = all(Answers::new(receiver)).await;
    let trailers = frames.pop().and_then(|frame| frame.into_trailers().ok());
    assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    let pieces: VecDeque<Bytes> = frames
        .into_iter()
        .map(|f| f.into_data().expect("data"))
        .collect();
    let largest = pieces.iter().map(Bytes::len).max();
    assert!(largest < Some(4 * PIECE + 100), "{largest:?}");
    let most = 1 << 20;
    let mut requests = Requests::new(Body::new(Pieces(pieces)), most);
    for response in sent {
        assert_eq!(requests.message().await.expect("no error"), Some(response));
    }
    let end: Option<DeltaDiscoveryResponse> = requests.message().await.expect("no error");
    assert_eq!(end, None);
}

#[tokio::test]
async fn a_refusal_ends_the_stream() {
    let (sender, receiver) = mpsc::channel(8);
    sender.send(Ok(response(&[1]))).await.expect("room");
    let refusal = Status::deadline_exceeded("too late");
    sender.send(Err(refusal)).await.expect("room");
    let mut frames = all(Answers::new(receiver)).await;
    let trailers = frames.pop().and_then(|frame| frame.into_trailers().ok());
    assert_eq!(trailers.expect("trailers")["grpc-status"], "4");
    assert_eq!(frames.len(), 1, "what was said before it");
}

fn framed(request: &DeltaDiscoveryRequest) -> Vec<u8> {
    let size = u32::try_from(request.encoded_len()).expect("small");
    let mut bytes = vec![0];
    bytes.extend(size.to_be_bytes());
    bytes.extend(request.encode_to_vec());
    bytes
}

#[tokio::test]
async fn requests_come_in_pieces_of_any_size() {
    let request = |url: &str| DeltaDiscoveryRequest {
        type_url: url.to_owned(),
        ..DeltaDiscoveryRequest::default()
    };
    let sent = [request("first"), request(""), request("third")];
    let bytes: Vec<u8> = sent.iter().flat_map(framed).collect();
    for size in 1..=bytes.len() {
        let pieces = bytes.chunks(size).map(Bytes::copy_from_slice).collect();
        let mut requests = Requests::new(Body::new(Pieces(pieces)), 100);
        for request in &sent {
            let came = requests.message().await.expect("no error");
            assert_eq!(came.as_ref(), Some(request), "in pieces of {size}");
        }
        assert!(requests.held.is_empty() && requests.held.capacity() == 0);
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let whole = framed(&DeltaDiscoveryRequest {
        type_url: "x".repeat(200),
        ..DeltaDiscoveryRequest::default()
    });
    let mut compressed = whole.clone();
    compressed[0] = 1;
    for (bytes, most, code) in [
        (&whole[..], 100, Code::OutOfRange),
        (&whole[..50], 1000, Code::Internal),
        (&compressed[..], 1000, Code::Unimplemented),
        (&[0, 0, 0, 0, 1, 0xff][..], 1000, Code::Internal),
    ] {
        let piece = Bytes::copy_from_slice(bytes);
        let mut requests = Requests::new(Body::new(Pieces([piece].into())), most);
        let refused = requests.message::<DeltaDiscoveryRequest>().await;
        assert_eq!(refused.expect_err("refused").code(), code);
    }
}
