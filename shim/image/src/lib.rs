//! hull-image.
