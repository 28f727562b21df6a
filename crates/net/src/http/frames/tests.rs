//! Exactly as many frames as there may be, and one more.

use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// What is wrong after `count` times `repeated`, from a client or a server that we have sent nothing.
fn after(is_client: bool, count: u32, repeated: impl Fn(u32) -> Vec<u8>) -> Option<Violation> {
    let mut frames = Frames::new(Limits::default(), is_client);
    // The clock is the test's own: all of it is within one second.
    if is_client {
        assert!(frames.look(&[0; PREFACE], 0).bad.is_none());
    }
    (0..count).find_map(|n| frames.look(&repeated(n), 0).bad.map(|bad| bad.why))
}

#[test]
fn at_the_limits_nobody_is_ended_and_one_beyond_them_everybody_is() {
    let limits = Limits::default();
    let open = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &[0x82]);
    let reset = |n: u32| frame(RST_STREAM, 0, 2 * n + 1, &[0; 4]);
    type Repeated<'a> = Box<dyn Fn(u32) -> Vec<u8> + 'a>;
    let cases: Vec<(&str, u32, Repeated)> = vec![
        (
            "pings",
            limits.pings,
            Box::new(|_| frame(PING, 0, 0, &[0; 8])),
        ),
        (
            "settings",
            limits.settings,
            Box::new(|_| frame(SETTINGS, 0, 0, &[])),
        ),
        (
            "window updates",
            limits.window_updates,
            Box::new(|_| frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ),
        (
            "goaways",
            limits.window_updates,
            Box::new(|_| frame(GOAWAY, 0, 0, &[0; 8])),
        ),
        (
            "empty frames",
            limits.empty_frames,
            Box::new(|_| frame(DATA, 0, 1, &[])),
        ),
        (
            "resets",
            limits.resets,
            Box::new(move |n| [open(n), reset(n)].concat()),
        ),
    ];
    for (what, most, repeated) in cases {
        assert_eq!(after(true, most, &repeated), None, "{what}");
        let one_more = after(true, most + 1, &repeated);
        assert!(matches!(one_more, Some(Violation::Flood(_))), "{what}");
    }
}

#[test]
fn resets_hidden_among_trailers() {
    let trailers = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &[]);
    let one = |n: u32| {
        let open = frame(HEADERS, END_HEADERS, 2 * n + 1, &[0x82]);
        let reset = frame(RST_STREAM, 0, 2 * n + 1, &[0; 4]);
        [
            open,
            trailers(n),
            trailers(n),
            trailers(n),
            trailers(n),
            reset,
        ]
        .concat()
    };
    let most = Limits::default().resets;
    assert_eq!(after(true, most, one), None);
    assert!(after(true, most + 1, one).is_some());
    // Blocks that open nothing are counted by themselves, too.
    let most = Limits::default().window_updates;
    assert!(after(true, most + 10, |_| trailers(0)).is_some());
}

#[test]
fn who_cancels_a_third_of_what_it_asks_for_may_until_it_is_very_much() {
    let three = |n: u32| {
        let open = |n: u32| frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &[0x82]);
        let reset = frame(RST_STREAM, 0, 6 * n + 1, &[0; 4]);
        [open(3 * n), open(3 * n + 1), open(3 * n + 2), reset].concat()
    };
    let limits = Limits::default();
    assert_eq!(after(true, limits.all_resets, three), None);
    assert!(after(true, limits.all_resets + 1, three).is_some());
    let reset = |n: u32| frame(RST_STREAM, 0, 2 * n + 1, &[0; 4]);
    assert_eq!(
        after(false, limits.all_resets + 1, reset),
        None,
        "servers refuse as they like"
    );
}
