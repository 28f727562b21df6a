//! Frames survive encoding, arrive in any pieces, and broken ones end the conversation.

use super::*;

fn frames(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Frame> {
    decoder.feed(bytes);
    std::iter::from_fn(|| decoder.next().unwrap()).collect()
}

#[test]
fn the_dictionary_is_that_of_the_draft() {
    assert_eq!(DICTIONARY.len(), 1423);
    let (mut a, mut b) = (1u32, 0u32);
    for byte in DICTIONARY.iter() {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    assert_eq!(b << 16 | a, 0xe3c6_a7c2, "Adler-32 of the dictionary");
}

#[test]
fn frames_in_any_pieces() {
    let mut encoder = Encoder::new();
    let mut bytes = Vec::new();
    for stream in [1, 3, 5] {
        bytes.extend_from_slice(&encoder.open(
            stream,
            &[("Streamtype", "data"), ("port", "80")],
            stream == 5,
        ));
        bytes.extend_from_slice(&data(stream, b"hello", stream == 3));
    }
    bytes.extend_from_slice(&encoder.reply(7));
    bytes.extend_from_slice(&ping(9));
    bytes.extend_from_slice(&reset(3, 5));
    bytes.extend_from_slice(&control(GOAWAY, 0, &[0; 8]));
    bytes.extend_from_slice(&control(4, 0, &[0; 4]));

    let whole = frames(&mut Decoder::default(), &bytes);
    let headers = || {
        vec![
            ("streamtype".to_owned(), "data".to_owned()),
            ("port".to_owned(), "80".to_owned()),
        ]
    };
    assert_eq!(
        whole[0],
        Frame::Open {
            stream: 1,
            headers: headers(),
            finished: false
        }
    );
    assert_eq!(
        whole[1],
        Frame::Data {
            stream: 1,
            bytes: "hello".into(),
            finished: false
        }
    );
    assert_eq!(
        whole[3],
        Frame::Data {
            stream: 3,
            bytes: "hello".into(),
            finished: true
        }
    );
    assert_eq!(
        whole[4],
        Frame::Open {
            stream: 5,
            headers: headers(),
            finished: true
        }
    );
    let rest = [
        Frame::Reply { stream: 7 },
        Frame::Ping { id: 9 },
        Frame::Reset { stream: 3 },
        Frame::GoAway,
        Frame::Other,
    ];
    assert_eq!(whole[6..], rest);

    let mut decoder = Decoder::default();
    let pieces: Vec<Frame> = bytes
        .chunks(1)
        .flat_map(|piece| frames(&mut decoder, piece))
        .collect();
    assert_eq!(pieces, whole);
}

#[test]
fn broken_frames() {
    let check = |bytes: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.feed(bytes);
        decoder.next().unwrap_err()
    };
    assert_eq!(
        check(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff]),
        SpdyError::TooLong(0xff_ffff)
    );
    assert_eq!(check(&[0x80, 2, 0, 1, 0, 0, 0, 0]), SpdyError::Version(2));
    assert_eq!(
        check(&control(SYN_STREAM, 0, &[0; 3])),
        SpdyError::Short(SYN_STREAM)
    );
    assert_eq!(
        check(&control(SYN_STREAM, 0, &[0xff; 40])),
        SpdyError::Headers
    );
    // A bomb: few bytes that grow beyond what is taken.
    let long = "x".repeat(MOST_HEADERS);
    assert_eq!(
        check(&Encoder::new().open(1, &[("a", &long)], false)),
        SpdyError::Headers
    );
    // A length beyond the block.
    let mut encoder = Encoder::new();
    let mut block = Vec::with_capacity(128);
    encoder
        .deflate
        .compress_vec(
            &[0, 0, 0, 1, 0, 0, 1, 0, b'a'],
            &mut block,
            FlushCompress::Sync,
        )
        .unwrap();
    let body: Vec<u8> = [0; 10].into_iter().chain(block).collect();
    assert_eq!(check(&control(SYN_STREAM, 0, &body)), SpdyError::Headers);
}

#[test]
fn damaged_bytes_never_panic() {
    let mut encoder = Encoder::new();
    let mut good = Vec::new();
    for stream in (1..20).step_by(2) {
        good.extend_from_slice(&encoder.open(
            stream,
            &[("streamtype", "data"), ("port", "80")],
            false,
        ));
        good.extend_from_slice(&data(stream, b"some bytes", stream % 4 == 1));
        good.extend_from_slice(&ping(stream));
    }
    // A linear congruential generator: the same damage at every run.
    let mut seed = 42u32;
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as usize
    };
    for _ in 0..3000 {
        let mut bytes = good.clone();
        for _ in 0..=random() % 4 {
            let place = random() % bytes.len();
            bytes[place] = random() as u8;
        }
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        while let Ok(Some(_)) = decoder.next() {}
    }
}
