//! Checks of the configuration beyond its types.

use hull_vmm_client::fsd::FsdConfig;

/// Most request queues: more than vCPUs of common pods.
pub const REQUEST_QUEUES_MAX: u16 = 16;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Out of range.
    #[error("request_queues is {0}; 1 to {REQUEST_QUEUES_MAX} are possible")]
    Queues(u16),
}

/// Refuses what cannot be right, with the field's name.
pub fn check(config: &FsdConfig) -> Result<(), ConfigError> {
    if !(1..=REQUEST_QUEUES_MAX).contains(&config.request_queues) {
        return Err(ConfigError::Queues(config.request_queues));
    }
    Ok(())
}
