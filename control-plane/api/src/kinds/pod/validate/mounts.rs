//! Mounts of volumes and their devices in containers.

use std::collections::HashSet;

use serde_json::Value;

use super::Surroundings;
use crate::{
    ObjectExt,
    field::{Errors, Path},
    kinds::pod::volumes::validate_descending,
};

pub(super) fn validate_mounts(
    container: &Value,
    around: &Surroundings<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let devices = container.list_at("/volumeDevices");
    let (device_names, device_paths) = (texts(devices, "/name"), texts(devices, "/devicePath"));
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, mount) in container.list_at("/volumeMounts").iter().enumerate() {
        let path = path.index(index);
        let name = mount.str_at("/name");
        let volume = around.volume(name);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if volume.is_none() {
            errors.not_found(&path.child("name"), name);
        }
        let target = mount.str_at("/mountPath");
        if target.is_empty() {
            errors.required(&path.child("mountPath"), "");
        } else if !seen.insert(target) {
            errors.invalid(&path.child("mountPath"), target, "must be unique");
        }
        if device_names.contains(name) {
            let why = "must not already exist in volumeDevices";
            errors.invalid(&path.child("name"), name, why);
        }
        if device_paths.contains(target) {
            let why = "must not already exist as a path in volumeDevices";
            errors.invalid(&path.child("mountPath"), target, why);
        }
        let is_image = volume.is_some_and(|volume| volume.get("image").is_some());
        validate_sub_path(mount, is_image, &path, errors);
        validate_propagation(mount, container, &path.child("mountPropagation"), errors);
        validate_recursion(mount, &path.child("recursiveReadOnly"), errors);
    }
}

fn texts<'a>(list: &'a [Value], pointer: &str) -> HashSet<&'a str> {
    list.iter().map(|one| one.str_at(pointer)).collect()
}

fn validate_sub_path(mount: &Value, is_image: bool, path: &Path, errors: &mut Errors) {
    for field in ["subPath", "subPathExpr"] {
        let (file, path) = (mount.str_at(&format!("/{field}")), path.child(field));
        if file.is_empty() {
            continue;
        }
        if is_image {
            errors.invalid(&path, file, "not allowed in image volume sources");
        }
        if field == "subPathExpr" && !mount.str_at("/subPath").is_empty() {
            errors.invalid(
                &path,
                file,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        validate_descending(file, &path, errors);
    }
}

fn validate_propagation(mount: &Value, container: &Value, path: &Path, errors: &mut Errors) {
    let Some(mode) = mount.get("mountPropagation").and_then(Value::as_str) else {
        return;
    };
    errors.check_supported(path, mode, &["Bidirectional", "HostToContainer", "None"]);
    if mode == "Bidirectional" && !container.bool_at("/securityContext/privileged") {
        errors.forbidden(
            path,
            "Bidirectional mount propagation is available only to privileged containers",
        );
    }
}

fn validate_recursion(mount: &Value, path: &Path, errors: &mut Errors) {
    let Some(mode) = mount.get("recursiveReadOnly").and_then(Value::as_str) else {
        return;
    };
    match mode {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !mount.bool_at("/readOnly") {
                errors.forbidden(path, "may only be specified when readOnly is true");
            }
            if !matches!(mount.str_at("/mountPropagation"), "" | "None") {
                errors.forbidden(
                    path,
                    "may only be specified when mountPropagation is None or not specified",
                );
            }
        }
        other => errors.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

pub(super) fn validate_devices(
    container: &Value,
    around: &Surroundings<'_>,
    path: &Path,
    errors: &mut Errors,
) {
    let mounts = container.list_at("/volumeMounts");
    let (mount_names, mount_paths) = (texts(mounts, "/name"), texts(mounts, "/mountPath"));
    let (mut names, mut targets) = (HashSet::new(), HashSet::new());
    for (index, device) in container.list_at("/volumeDevices").iter().enumerate() {
        let path = path.index(index);
        let (name, target) = (device.str_at("/name"), device.str_at("/devicePath"));
        let (at_name, at_target) = (path.child("name"), path.child("devicePath"));
        match around.volume(name) {
            _ if name.is_empty() => errors.required(&at_name, ""),
            None => errors.not_found(&at_name, name),
            Some(volume)
                if ["persistentVolumeClaim", "ephemeral"]
                    .iter()
                    .all(|source| volume.get(*source).is_none()) =>
            {
                errors.invalid(
                    &at_name,
                    name,
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                );
            }
            Some(_) => {}
        }
        if !name.is_empty() && !names.insert(name) {
            errors.invalid(&at_name, name, "must be unique");
        }
        if target.is_empty() {
            errors.required(&at_target, "");
        } else if !targets.insert(target) {
            errors.invalid(&at_target, target, "must be unique");
        } else if target.split('/').any(|part| part == "..") {
            errors.invalid(&at_target, target, "can not contain backsteps ('..')");
        }
        if mount_names.contains(name) {
            errors.invalid(&at_name, name, "must not already exist in volumeMounts");
        }
        if mount_paths.contains(target) {
            let why = "must not already exist as a path in volumeMounts";
            errors.invalid(&at_target, target, why);
        }
    }
}
