//! How names are resolved in a pod: `dnsPolicy`, `dnsConfig`, `hostAliases`.

use std::net::IpAddr;

use serde_json::Value;

use crate::{
    ObjectExt,
    field::{Errors, Path},
    names,
};

/// What libc takes of resolv.conf.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;

pub(super) fn validate_dns(spec: &Value, path: &Path, errors: &mut Errors) {
    let policy = spec.str_at("/dnsPolicy");
    errors.check_supported(
        &path.child("dnsPolicy"),
        policy,
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    validate_aliases(spec, &path.child("hostAliases"), errors);
    let path = path.child("dnsConfig");
    let servers = spec.list_at("/dnsConfig/nameservers");
    if policy == "None" && spec.get("dnsConfig").is_none() {
        errors.required(&path, "must provide `dnsConfig` when `dnsPolicy` is None");
    } else if policy == "None" && servers.is_empty() {
        errors.required(
            &path.child("nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > MAX_NAMESERVERS {
        errors.invalid(
            &path.child("nameservers"),
            servers.to_vec(),
            format!("must not have more than {MAX_NAMESERVERS} nameservers"),
        );
    }
    for (index, server) in servers.iter().enumerate() {
        validate_address(server, &path.child("nameservers").index(index), errors);
    }
    validate_searches(spec, &path.child("searches"), errors);
    let options = spec.list_at("/dnsConfig/options");
    for (index, option) in options.iter().enumerate() {
        if option.str_at("/name").is_empty() {
            errors.required(&path.child("options").index(index), "must not be empty");
        }
    }
}

fn validate_searches(spec: &Value, path: &Path, errors: &mut Errors) {
    let searches = spec.list_at("/dnsConfig/searches");
    if searches.len() > MAX_SEARCH_PATHS {
        errors.invalid(
            path,
            searches.to_vec(),
            format!("must not have more than {MAX_SEARCH_PATHS} search paths"),
        );
    }
    let texts: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if texts.join(" ").len() > MAX_SEARCH_BYTES {
        errors.invalid(
            path,
            searches.to_vec(),
            format!(
                "must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list"
            ),
        );
    }
    for (index, text) in texts.iter().enumerate().filter(|(_, text)| **text != ".") {
        let name = text.strip_suffix('.').unwrap_or(text);
        // Underscores are usual in names of services.
        for why in names::subdomain(&name.replace('_', "x")) {
            errors.invalid(&path.index(index), name, why);
        }
    }
}

fn validate_aliases(spec: &Value, path: &Path, errors: &mut Errors) {
    for (index, alias) in spec.list_at("/hostAliases").iter().enumerate() {
        let path = path.index(index);
        let address = alias.get("ip").unwrap_or(&Value::Null);
        validate_address(address, &path.child("ip"), errors);
        for (at, name) in alias.list_at("/hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            for why in names::subdomain(name) {
                errors.invalid(&path.child("hostnames").index(at), name, why);
            }
        }
    }
}

fn validate_address(address: &Value, path: &Path, errors: &mut Errors) {
    let text = address.as_str().unwrap_or("");
    if text.parse::<IpAddr>().is_err() {
        errors.invalid(
            path,
            text,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    }
}
