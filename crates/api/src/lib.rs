//! What the user wrote: Istio and core Kubernetes kinds, YAML in, notices out.
