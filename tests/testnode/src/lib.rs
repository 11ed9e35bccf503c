//! hull-testnode.
