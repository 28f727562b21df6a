//! Any first bytes of a connection: the guess never panics, and more bytes never change a guess once it is made.
#![no_main]

use lateen_net::detect::{Guess, guess};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = guess(data);
    let half = guess(&data[..data.len() / 2]);
    if half != Guess::Unsure {
        assert_eq!(
            std::mem::discriminant(&half),
            std::mem::discriminant(&whole),
            "more bytes changed the protocol"
        );
    }
});
