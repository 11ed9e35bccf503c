//! hull-e2e.
