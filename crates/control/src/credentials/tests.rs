//! What gateways get of Secrets.
