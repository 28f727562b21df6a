//! Model to protobuf and back, and the delta-ADS state machines at both ends.
