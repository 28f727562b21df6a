//! Protobuf messages and gRPC services as generated code, and nothing else.
