//! Pure transforms from what the user wrote to what the mesh means.
