//! The Prometheus text format (version 0.0.4), for metrics whose samples carry a time.

use std::fmt::Write;

/// What is being written.
#[derive(Default)]
pub(super) struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a metric.
    pub(super) fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample; `time_ns` 0 means now.
    pub(super) fn sample(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        value: impl std::fmt::Display,
        time_ns: i64,
    ) {
        self.text.push_str(name);
        if !labels.is_empty() {
            let pairs: Vec<String> = labels
                .iter()
                .map(|(key, value)| format!("{key}=\"{}\"", escape(value)))
                .collect();
            let _ = write!(self.text, "{{{}}}", pairs.join(","));
        }
        let _ = write!(self.text, " {value}");
        if time_ns > 0 {
            let _ = write!(self.text, " {}", time_ns / 1_000_000);
        }
        self.text.push('\n');
    }

    pub(super) fn finish(self) -> String {
        self.text
    }
}

fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_carry_labels_and_times() {
        let mut text = Exposition::default();
        text.metric("a_total", "counter", "Two\nlines.");
        text.sample("a_total", &[("x", "q\"\n")], 1.5, 2_000_000_000);
        text.sample("b", &[], 3, 0);
        assert_eq!(
            text.finish(),
            "# HELP a_total Two\\nlines.\n# TYPE a_total counter\na_total{x=\"q\\\"\\n\"} 1.5 2000\nb 3\n"
        );
    }
}
