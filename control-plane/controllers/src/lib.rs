//! hull-controllers.
