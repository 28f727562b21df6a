//! HTTP filters compiled from model data.
