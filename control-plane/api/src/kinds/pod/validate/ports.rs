//! Ports of containers.

use std::collections::HashSet;

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

pub(super) fn validate_ports(container: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, port) in container.list_at("/ports").iter().enumerate() {
        let path = path.index(index);
        let name = port.str_at("/name");
        if !name.is_empty() {
            for why in names::port_name(name) {
                errors.invalid(&path.child("name"), name, why);
            }
            if !seen.insert(name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
        match port.int_at("/containerPort").unwrap_or(0) {
            0 => errors.required(&path.child("containerPort"), ""),
            number => check_port(number, &path.child("containerPort"), errors),
        }
        match port.int_at("/hostPort").unwrap_or(0) {
            0 => {}
            number => check_port(number, &path.child("hostPort"), errors),
        }
        match port.str_at("/protocol") {
            "" => errors.required(&path.child("protocol"), ""),
            protocol => errors.check_supported(&path.child("protocol"), protocol, PROTOCOLS),
        }
    }
}

pub(super) fn check_port(number: i64, path: &Path, errors: &mut Errors) {
    if let Some(why) = names::port_number(number) {
        errors.invalid(path, number, why);
    }
}

/// Two containers cannot take the same port of the host.
pub(super) fn validate_ports_unique(containers: &[Value], path: &Path, errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in container.list_at("/ports").iter().enumerate() {
            let number = port.int_at("/hostPort").unwrap_or(0);
            let key = (number, port.str_at("/protocol"), port.str_at("/hostIP"));
            if number != 0 && !seen.insert(key) {
                errors.duplicate(
                    &path.index(index).child("ports").index(at).child("hostPort"),
                    format!("{}/{}/{}", key.1, key.2, key.0),
                );
            }
        }
    }
}
