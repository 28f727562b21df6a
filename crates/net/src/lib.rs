//! Sockets as a proxy needs them: listening, original destinations, dialing, telling protocols apart,
//! copying bytes, and the HTTP engines at both ends.
//!
//! ```text
//! listen -> budget -> original -> detect -> tls -> http::server | copy
//!                                   dial -> tls -> http::client | copy
//! ```
//! It knows no mesh noun: what a connection is for, and where it may go, is decided elsewhere.

pub mod budget;
pub mod capture;
pub mod copy;
pub mod detect;
pub mod dial;
pub mod dns;
pub mod http;
pub mod listen;
pub mod memory;
pub mod nft;
pub mod original;
pub mod panics;
pub mod proxy_header;
pub mod seldom;
pub mod stream;
pub mod tls;
