//! hull-node.
