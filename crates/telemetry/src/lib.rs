//! Metric families, the access-log record and its format.
