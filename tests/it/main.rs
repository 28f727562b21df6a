//! The walk-throughs, typed as a user types them: `lateen`, `kubectl` and `curl` against a sandbox of its own.
//! Each test starts a mesh and ends it; run with `--test-threads=1` (`cargo xtask e2e` does).

mod bad_input;
mod bookinfo;
mod demand;
mod mesh;
mod names;
mod networking;
mod rate_limits;
mod resilience;
mod security;
mod seeds;
mod servers;
mod traffic;
mod user;
mod verbs;
