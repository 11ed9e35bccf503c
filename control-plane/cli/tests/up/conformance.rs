//! docs/conformance.md is true: every test that it names is there.

use std::path::{Path, PathBuf};

/// The names that the page gives to folders.
const FOLDERS: [(&str, &str); 4] = [
    ("api/", "control-plane/apiserver/tests/api/"),
    ("controllers/", "control-plane/controllers/"),
    ("up/", "control-plane/cli/tests/up/"),
    ("e2e/", "tests/e2e/tests/cluster/"),
];

fn file(root: &Path, named: &str) -> PathBuf {
    let found = FOLDERS
        .iter()
        .find_map(|(short, folder)| Some((folder, named.strip_prefix(short)?)));
    let (folder, rest) = found.unwrap_or_else(|| panic!("{named} is in no folder"));
    root.join(folder).join(rest)
}

#[test]
fn docs_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/conformance.md")).unwrap();
    let mut checked = 0;
    for row in page
        .lines()
        .filter(|line| line.starts_with("| ") && line.contains(".rs`"))
    {
        let tests = row.split('|').nth(2).unwrap();
        let mut source = String::new();
        // `FILE` name, name; `FILE` name
        for (index, part) in tests.split('`').enumerate() {
            if index % 2 == 1 {
                source = std::fs::read_to_string(file(&root, part)).unwrap();
                continue;
            }
            let words = part
                .split([' ', ',', ';'])
                .filter(|word| word.contains('_'));
            for name in words {
                assert!(
                    source.contains(&format!("fn {name}(")),
                    "no test {name}: {row}"
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 50, "{checked}");
}
