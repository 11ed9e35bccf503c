//! hull-scheduler.
