//! What `scripts/packages.sh` does about the services of the packages that it installs.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Surroundings, root, text};

/// Stands for dpkg-query: of the packages `$MISSING` is not installed.
const DPKG_QUERY: &str = r#"#!/bin/bash
[[ " $MISSING " != *" ${*: -1} "* ]] || exit 1
echo "install ok installed"
"#;

/// Stands for apt-get: writes down what it is called with, and which units are masked then.
const APT_GET: &str = r#"#!/bin/bash
echo "$* masked: $(cd "$SYSTEMD_UNIT_DIR" 2>/dev/null && find . -lname /dev/null | sort | xargs)" >>"$HOME/apt"
"#;

/// Installs; gives what apt-get was told, and what was said.
fn install(surroundings: &Surroundings, missing: &str) -> (String, String) {
    surroundings.tool("dpkg-query", DPKG_QUERY);
    surroundings.tool("apt-get", APT_GET);
    surroundings.tool("id", "#!/bin/sh\necho 0\n");
    let output = surroundings
        .command(&root().join("scripts/packages.sh"))
        .env("SYSTEMD_UNIT_DIR", units(surroundings))
        .env("MISSING", missing)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = fs::read_to_string(surroundings.home().join("apt")).unwrap_or_default();
    (told, text(&output.stderr))
}

fn units(surroundings: &Surroundings) -> PathBuf {
    surroundings.home().join("units")
}

fn links_to_nothing(unit: &Path) -> bool {
    fs::read_link(unit).is_ok_and(|target| target == Path::new("/dev/null"))
}

#[test]
fn services_of_packages_are_off_before_the_packages_come() {
    let surroundings = Surroundings::new();
    let (told, said) = install(&surroundings, "docker-registry etcd-server flex");
    assert_eq!(
        told,
        "update masked: ./docker-registry.service ./etcd.service\n\
         install -y --no-install-recommends flex docker-registry etcd-server \
         masked: ./docker-registry.service ./etcd.service\n"
    );
    assert!(said.contains("systemctl unmask etcd"), "{said}");
    assert!(links_to_nothing(&units(&surroundings).join("etcd.service")));
}

#[test]
fn a_service_that_was_there_before_is_left_alone() {
    let surroundings = Surroundings::new();
    fs::create_dir(units(&surroundings)).unwrap();
    fs::write(units(&surroundings).join("etcd.service"), "[Service]\n").unwrap();
    let (told, _) = install(&surroundings, "etcd-server");
    assert_eq!(
        told,
        "update masked: \ninstall -y --no-install-recommends etcd-server masked: \n"
    );

    let surroundings = Surroundings::new();
    assert_eq!(install(&surroundings, ""), Default::default());
    assert!(!units(&surroundings).exists());
}
