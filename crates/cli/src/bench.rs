//! `lateen bench`: bounded measurements of a running mesh. Load goes to the loopback only.

pub mod load;
pub mod propagation;
