//! Why a controller could not finish with an object; it comes back to it later.

use super::store::sentence;

/// Why work on an object stopped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The API server refused or did not answer.
    #[error("{}", sentence(.0))]
    Api(#[from] kube::Error),
    /// The world has to move first.
    #[error("{0}")]
    Again(String),
}
