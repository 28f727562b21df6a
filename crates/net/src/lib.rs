//! Sockets, capture rules, HTTP engines and dialing. No mesh noun.
