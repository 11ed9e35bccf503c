//! Takes what `kubectl explain` says of types and fields from the sources of the crate
//! k8s-openapi, which cargo has on this machine for other crates of the workspace.
//!
//! ```text
//! CARGO_HOME/registry/src/*/k8s-openapi-VERSION/src/v1_36/**/*.rs
//!     ─► OUT_DIR/PACKAGE.txt      RS Type US field US text, a record each; no field: the type's
//!     ─► OUT_DIR/descriptions.rs  a list of (package, text)
//! ```

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

/// The crate and its folder of the Kubernetes version whose API this is.
const CRATE: &str = "k8s-openapi";
const VERSION_FOLDER: &str = "src/v1_36";
/// First line of a type's file, before the type's name.
const TYPE_LINE: &str = "// Generated from definition ";
/// How lines of a type's JSON schema begin: its description, a field, a field's description.
const OF_TYPE: &str = "\n            \"description\": \"";
const FIELD: &str = "\n                \"";
const OF_FIELD: [&str; 2] = [
    "\n                    \"description\": \"",
    "\n                    schema_obj.ensure_object().insert(\"description\".into(), \"",
];

fn main() -> Result<(), Box<dyn Error>> {
    let lock = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", lock.display());
    println!("cargo::rerun-if-env-changed=CARGO_HOME");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let mut packages: BTreeMap<String, String> = BTreeMap::new();
    match sources(&lock)? {
        Some(folder) => collect(&folder.join(VERSION_FOLDER), &mut packages)?,
        None => println!("cargo::warning=no sources of {CRATE}: types have no descriptions"),
    }
    let mut list = String::from("[\n");
    for (package, text) in packages {
        let file = out.join(format!("{package}.txt"));
        fs::write(&file, text)?;
        writeln!(list, "({package:?}, include_str!({file:?})),")?;
    }
    list.push(']');
    Ok(fs::write(out.join("descriptions.rs"), list)?)
}

/// Where cargo has the crate, in the version of the lock file.
fn sources(lock: &Path) -> Result<Option<PathBuf>, Box<dyn Error>> {
    let lock = fs::read_to_string(lock)?;
    let entry = format!("name = \"{CRATE}\"\nversion = \"");
    let version = lock
        .split(&entry)
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let version = version.ok_or("Cargo.lock does not name the crate")?;
    let home = match env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo"),
    };
    let found = unpacked(&home.join("registry/src"), &format!("{CRATE}-{version}"));
    // What is not there is looked for at every build; a whole folder would be read through.
    let watched = found.clone().unwrap_or_else(|| home.join(CRATE));
    println!(
        "cargo::rerun-if-changed={}",
        watched.join("Cargo.toml").display()
    );
    Ok(found)
}

/// The folder of a crate, of whichever registry.
fn unpacked(registries: &Path, name: &str) -> Option<PathBuf> {
    let registries = fs::read_dir(registries).ok()?.flatten();
    let mut folders = registries.map(|registry| registry.path().join(name));
    folders.find(|folder| folder.join(VERSION_FOLDER).is_dir())
}

fn collect(folder: &Path, packages: &mut BTreeMap<String, String>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), packages)?;
            continue;
        }
        let source = fs::read_to_string(entry.path())?;
        let name = source
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(TYPE_LINE));
        if let Some((package, name)) = name.and_then(|name| name.trim().rsplit_once('.')) {
            add_type(
                name,
                &source,
                packages.entry(package.to_owned()).or_default(),
            );
        }
    }
    Ok(())
}

fn add_type(name: &str, source: &str, out: &mut String) {
    let Some(start) = source.find("json_schema!({") else {
        return;
    };
    let schema = source.get(start..).unwrap_or_default();
    let mut add = |field: &str, text: &str| {
        out.push_str(&format!("\u{1e}{name}\u{1f}{field}\u{1f}{text}"));
    };
    if let Some(text) = quoted_after(schema, OF_TYPE) {
        add("", &text);
    }
    for part in schema.split(FIELD).skip(1) {
        let field = part.split('"').next().unwrap_or_default();
        let text = OF_FIELD.iter().find_map(|begin| quoted_after(part, begin));
        if let Some(text) = text {
            add(field, &text);
        }
    }
}

/// The string literal that begins after `begin`.
fn quoted_after(source: &str, begin: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = source.split(begin).nth(1)?.chars();
    loop {
        match rest.next()? {
            '"' => return Some(text),
            '\\' => text.push(match rest.next()? {
                'n' => '\n',
                't' => '\t',
                'u' => unicode(&mut rest)?,
                other => other,
            }),
            other => text.push(other),
        }
    }
}

/// What follows `\u` in a literal: `{2026}`.
fn unicode(rest: &mut std::str::Chars<'_>) -> Option<char> {
    let digits: String = rest.by_ref().skip(1).take_while(|c| *c != '}').collect();
    char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
}
