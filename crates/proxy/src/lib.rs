//! The data plane: accept, decide, filter, balance, send.
