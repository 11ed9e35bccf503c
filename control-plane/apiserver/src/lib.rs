//! hull-apiserver.
