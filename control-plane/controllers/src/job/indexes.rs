//! Completion indexes: their text form (`1,3-5,7`) and where pods carry them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

/// The annotation and label with a pod's index.
pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads the text form; parts that make no sense and indexes of `limit` and more are left out.
pub fn parse(text: &str, limit: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            let last = last.min(limit.saturating_sub(1));
            indexes.extend(first.max(0)..=last);
        }
    }
    indexes
}

/// The text form: runs of three and more, and pairs, as ranges.
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for &index in indexes {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => runs.push((index, index)),
        }
    }
    let text = |(first, last): &(i32, i32)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The pod's index, if it has one below `completions`.
pub fn of(pod: &Pod, completions: i32) -> Option<i32> {
    let annotations = pod.metadata.annotations.as_ref()?;
    let index = annotations.get(INDEX)?.parse().ok()?;
    (0..completions).contains(&index).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_has_ranges() {
        for text in ["", "0", "0-1", "1,3-5,7", "0-99"] {
            assert_eq!(format(&parse(text, 100)), text);
        }
        assert_eq!(format(&parse("3-200,x,5-", 6)), "3-5");
    }
}
