//! `spec.successPolicy`: when an indexed job has done enough.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::JobSpec;

use super::{indexes, tally::count};

/// The rule that is met, in Kubernetes' words.
pub(super) fn met(spec: &JobSpec, succeeded: &BTreeSet<i32>) -> Option<String> {
    let rules = &spec.success_policy.as_ref()?.rules;
    let completions = spec.completions.unwrap_or(0);
    let met = rules.iter().position(|rule| {
        let Some(wanted) = &rule.succeeded_indexes else {
            return rule
                .succeeded_count
                .is_some_and(|wanted| count(succeeded.len()) >= wanted);
        };
        let wanted = indexes::parse(wanted, completions);
        let done = count(wanted.intersection(succeeded).count());
        done >= rule.succeeded_count.unwrap_or(count(wanted.len()))
    })?;
    Some(format!("Matched rules at index {met}"))
}
