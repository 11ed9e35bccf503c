//! Markdown output.

use std::fmt;
use std::time::Duration;

use crate::stats::Samples;

/// One benchmark's output: a heading, tables, and remarks.
#[derive(Default)]
pub struct Report {
    heading: String,
    parts: Vec<String>,
}

impl Report {
    pub fn new(heading: &str) -> Self {
        Self {
            heading: heading.to_owned(),
            parts: Vec::new(),
        }
    }

    pub fn table(&mut self, table: Table) {
        self.parts.push(table.to_string());
    }

    pub fn remark(&mut self, text: impl Into<String>) {
        self.parts.push(format!("{}\n", text.into()));
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n", self.heading)?;
        for part in &self.parts {
            writeln!(f, "{part}")?;
        }
        Ok(())
    }
}

/// A table with a line of column names.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[&str]) -> Self {
        Self {
            rows: vec![columns.iter().map(|name| (*name).to_owned()).collect()],
        }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// A row of a name and the spread of its samples; fits columns `what, min, median, max`.
    pub fn spread(&mut self, name: &str, samples: &Samples) {
        let spread = [samples.min(), samples.median(), samples.max()];
        self.row(
            [name.to_owned()]
                .into_iter()
                .chain(spread.map(milliseconds)),
        );
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                // Names to the left, numbers to the right.
                let rules = row
                    .iter()
                    .enumerate()
                    .map(|(c, _)| if c == 0 { "---" } else { "---:" });
                writeln!(f, "|{}|", rules.collect::<Vec<_>>().join("|"))?;
            }
        }
        Ok(())
    }
}

/// A duration in milliseconds with as many digits as mean something.
pub fn milliseconds(duration: Duration) -> String {
    let milliseconds = duration.as_secs_f64() * 1000.0;
    match milliseconds {
        large if large >= 100.0 => format!("{large:.0}"),
        medium if medium >= 1.0 => format!("{medium:.1}"),
        small => format!("{small:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_markdown() {
        let mut table = Table::new(&["what", "ms"]);
        table.row(["x".to_owned(), milliseconds(Duration::from_micros(1250))]);
        assert_eq!(
            table.to_string(),
            "| what | ms |\n|---|---:|\n| x | 1.2 |\n"
        );
    }
}
