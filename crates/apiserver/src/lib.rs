//! Embedded Kubernetes-style API server: discovery, CRUD, watch, patch, admission.
