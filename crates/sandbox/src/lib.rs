//! A one-machine cluster: pods as processes in network namespaces.
