//! What the API server itself refuses and keeps.
