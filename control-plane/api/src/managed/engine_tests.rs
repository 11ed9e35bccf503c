//! Ownership through whole histories of writes.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ObjectExt;

fn write(manager: &str) -> Write<'_> {
    Write {
        manager,
        api_version: "apps/v1",
        subresource: "",
        reset: Reset::Status,
        now: Timestamp::UNIX_EPOCH,
    }
}

fn root() -> TypeRef<'static> {
    TypeRef::named("apps.Deployment")
}

fn applied(live: &Value, config: &Value, manager: &str, force: bool) -> Result<Value, ApplyError> {
    let request = Apply {
        live,
        config,
        force,
    };
    apply(request, root(), &write(manager))
}

fn updated(live: &Value, mut new: Value, manager: &str) -> Value {
    let given = new.pointer("/metadata/managedFields").cloned();
    update(
        Some(live),
        &mut new,
        given.as_ref(),
        root(),
        &write(manager),
    );
    new
}

fn created(mut object: Value, manager: &str) -> Value {
    update(None, &mut object, None, root(), &write(manager));
    object
}

/// The fields of a manager.
fn fields(object: &Value, manager: &str, operation: &str) -> Value {
    object
        .list_at("/metadata/managedFields")
        .iter()
        .find(|entry| entry["manager"] == manager && entry["operation"] == operation)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

fn deployment() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [
            {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}]}}}})
}

#[test]
fn a_create_gives_every_written_field_to_its_manager() {
    let object = created(deployment(), "kubectl-create");
    assert_eq!(
        fields(&object, "kubectl-create", "Update"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {}, "f:ports": {
                    ".": {},
                    "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}},
                }},
            }}}},
        })
    );
}

#[test]
fn an_update_takes_over_only_what_it_changes() {
    let object = created(deployment(), "a");
    let mut new = object.clone();
    new["spec"]["replicas"] = json!(5);
    new["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
    let object = updated(&object, new, "b");
    assert_eq!(
        fields(&object, "b", "Update"),
        json!({"f:metadata": {"f:labels": {"f:tier": {}}}, "f:spec": {"f:replicas": {}}})
    );
    let of_a = fields(&object, "a", "Update");
    assert!(of_a["f:spec"].get("f:replicas").is_none());
    assert_eq!(
        of_a["f:metadata"]["f:labels"],
        json!({".": {}, "f:app": {}})
    );
}

#[test]
fn a_conflict_names_owner_and_path_and_force_takes_the_field() {
    let object = created(deployment(), "a");
    let config = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 1}});
    let error = applied(&object, &config, "b", false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"a\" using apps/v1: .spec.replicas"
    );
    let mut both = config.clone();
    both["spec"]["template"] = json!({"spec": {"containers": [{"name": "web", "image": "httpd"}]}});
    assert_eq!(
        applied(&object, &both, "b", false).unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"a\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"web\"].image"
    );
    let forced = applied(&object, &config, "b", true).unwrap();
    assert_eq!(forced["spec"]["replicas"], 1);
    assert_eq!(
        fields(&forced, "b", "Apply"),
        json!({"f:spec": {"f:replicas": {}}})
    );
    assert!(
        fields(&forced, "a", "Update")["f:spec"]
            .get("f:replicas")
            .is_none()
    );
}

#[test]
fn the_same_value_is_shared_without_conflict() {
    let object = created(deployment(), "a");
    let config = json!({"spec": {"replicas": 3}});
    let shared = applied(&object, &config, "b", false).unwrap();
    assert_eq!(
        fields(&shared, "a", "Update")["f:spec"]["f:replicas"],
        json!({})
    );
    assert_eq!(
        fields(&shared, "b", "Apply")["f:spec"]["f:replicas"],
        json!({})
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let empty = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}});
    let object = created(empty.clone(), "setup");
    let first = json!({"metadata": {"labels": {"a": "1", "b": "2"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "x", "image": "i", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
            {"name": "y", "image": "j"}]}}}});
    let object = applied(&object, &first, "m", false).unwrap();
    let other = json!({"metadata": {"labels": {"b": "2"}}});
    let object = applied(&object, &other, "n", false).unwrap();
    let second = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "x", "image": "i", "env": [{"name": "B", "value": "2"}]}]}}}});
    let object = applied(&object, &second, "m", false).unwrap();
    assert_eq!(object["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(
        object["spec"],
        json!({"template": {"spec": {"containers": [
            {"name": "x", "image": "i", "env": [{"name": "B", "value": "2"}]}]}}})
    );
}

#[test]
fn defaults_inside_a_container_that_stays_are_kept() {
    let first = json!({"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "i"}]}},
        "replicas": 1}});
    let object = applied(&json!({"metadata": {}}), &first, "m", false).unwrap();
    let mut new = object.clone();
    new["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let object = updated(&object, new, "defaults");
    let second =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "x", "image": "k"}]}}}});
    let object = applied(&object, &second, "m", false).unwrap();
    assert_eq!(
        object["spec"],
        json!({"template": {"spec": {"containers": [
            {"name": "x", "image": "k", "imagePullPolicy": "Always"}]}}})
    );
}

#[test]
fn the_applied_order_of_a_list_wins_and_other_elements_keep_their_place() {
    let names = |object: &Value| -> Vec<String> {
        object
            .list_at("/spec/template/spec/containers")
            .iter()
            .map(|c| c.str_at("/name").to_string())
            .collect()
    };
    let list = |names: &[&str]| {
        let items: Vec<Value> = names.iter().map(|n| json!({"name": n})).collect();
        json!({"metadata": {}, "spec": {"template": {"spec": {"containers": items}}}})
    };
    let live = created(list(&["a", "b", "c"]), "setup");
    let merged = applied(&live, &list(&["c", "a"]), "m", false).unwrap();
    let got = names(&merged);
    let position = |name: &str| got.iter().position(|n| n == name).unwrap();
    assert_eq!(got.len(), 3);
    assert!(position("c") < position("a"), "{got:?}");
    let merged = applied(&live, &list(&["x", "b"]), "m", false).unwrap();
    let got = names(&merged);
    assert_eq!(got.len(), 4, "{got:?}");
}

#[test]
fn an_object_without_owners_belongs_to_before_first_apply() {
    let live = deployment();
    assert!(
        updated(&live, live.clone(), "a")
            .pointer("/metadata/managedFields")
            .is_none()
    );
    let error = applied(&live, &json!({"spec": {"replicas": 1}}), "m", false).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("conflict with \"before-first-apply\""),
        "{error}"
    );
}

#[test]
fn kubectl_takes_over_what_client_side_apply_wrote() {
    let mut object = deployment();
    let last = json!({"spec": {"replicas": 3}});
    object["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    let object = created(object, "kubectl-client-side-apply");
    let config = json!({"spec": {"replicas": 9}});
    assert!(applied(&object, &config, "other", false).is_err());
    let taken = applied(&object, &config, "kubectl", false).unwrap();
    assert_eq!(taken["spec"]["replicas"], 9);
    assert!(
        taken["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"]
            .as_str()
            .unwrap()
            .contains("9")
    );
}

#[test]
fn duplicates_in_the_configuration_are_named() {
    let config =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}});
    assert_eq!(
        applied(&json!({"metadata": {}}), &config, "m", false)
            .unwrap_err()
            .to_string(),
        ".spec.template.spec.containers: duplicate entries for key [name=\"a\"]"
    );
}

#[test]
fn managers_can_be_edited_and_reset_by_a_client() {
    let object = created(deployment(), "a");
    let mut renamed = object.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("z");
    let renamed = updated(&object, renamed, "b");
    assert!(!fields(&renamed, "z", "Update").is_null());
    assert!(fields(&renamed, "a", "Update").is_null());
    let mut reset = object.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    assert!(
        updated(&object, reset, "b")
            .pointer("/metadata/managedFields")
            .is_none()
    );
    let mut garbage = object.clone();
    garbage["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert!(!fields(&updated(&object, garbage, "b"), "a", "Update").is_null());
}

#[test]
fn many_managers_of_updates_become_ancient_changes() {
    let mut object = created(json!({"metadata": {"labels": {}}}), "start");
    for index in 0..20 {
        let mut new = object.clone();
        new["metadata"]["labels"][format!("l{index}")] = json!("x");
        object = updated(&object, new, &format!("m{index:02}"));
    }
    let entries = object.list_at("/metadata/managedFields");
    assert_eq!(entries.len(), 10);
    let owned: usize = entries
        .iter()
        .map(|e| FieldSet::parse(&e["fieldsV1"]).paths().len())
        .sum();
    assert!(owned >= 20);
}

fn labels() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", "[0-2]", 0..4).prop_map(|map| json!(map))
}

fn containers() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-c]", ("[xy]", proptest::option::of(0..3i32)), 0..3)
        .prop_map(|map| {
            let items: Vec<Value> = map
                .into_iter()
                .map(|(name, (image, port))| match port {
                    Some(port) => json!({"name": name, "image": image,
                        "ports": [{"containerPort": port}]}),
                    None => json!({"name": name, "image": image}),
                })
                .collect();
            json!(items)
        })
}

fn config() -> impl Strategy<Value = Value> {
    (labels(), containers(), proptest::option::of(0..3i32)).prop_map(
        |(labels, containers, replicas)| {
            let mut object = json!({"metadata": {"name": "web", "labels": labels},
            "spec": {"template": {"spec": {"containers": containers}}}});
            if let Some(replicas) = replicas {
                object["spec"]["replicas"] = json!(replicas);
            }
            object
        },
    )
}

fn owned(object: &Value) -> FieldSet {
    object
        .list_at("/metadata/managedFields")
        .iter()
        .fold(FieldSet::default(), |all, entry| {
            all.union(&FieldSet::parse(&entry["fieldsV1"]))
        })
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing_the_second_time(start in config(), applied_config in config()) {
        let live = created(start, "start");
        let once = applied(&live, &applied_config, "m", true).unwrap();
        let twice = applied(&once, &applied_config, "m", false).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn every_applied_field_is_there_and_owned(start in config(), applied_config in config()) {
        let live = created(start, "start");
        let merged = applied(&live, &applied_config, "m", true).unwrap();
        let again = applied(&merged, &applied_config, "n", false);
        // Somebody else who applies the same has no conflict: all of it is as applied.
        prop_assert!(again.is_ok());
    }

    #[test]
    fn no_field_loses_its_last_owner(start in config(), first in config(), second in config()) {
        let live = created(start, "start");
        let one = applied(&live, &first, "m", true).unwrap();
        let two = updated(&one, {
            let mut new = second;
            new["metadata"]["managedFields"] = one["metadata"]["managedFields"].clone();
            new
        }, "u");
        // Every field of the object has an owner.
        let mut bare = two.clone();
        bare.remove_at(&["metadata", "managedFields"]);
        let mut all = super::walk::applied_fields(&bare, root());
        all.remove_fields("f:metadata", &["f:name"]);
        let lost = all.difference(&owned(&two)).paths();
        prop_assert!(lost.is_empty(), "{:?}", lost);
    }

    #[test]
    fn without_force_nobody_elses_field_changes(start in config(), mine in config()) {
        let live = created(start, "start");
        if let Ok(merged) = applied(&live, &mine, "m", false) {
            prop_assert_eq!(fields(&merged, "start", "Update"), fields(&live, "start", "Update"));
        }
    }

    #[test]
    fn garbage_as_managed_fields_is_survived(text in "[fkv.:{}\"a-z]{0,12}", operation in "(Apply|Update|x)") {
        let mut object = created(deployment(), "a");
        object["metadata"]["managedFields"] = json!([{"manager": text, "operation": operation,
            "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {text.clone(): {text.clone(): 1}}}]);
        let _ = updated(&deployment(), object.clone(), "b");
        let _ = applied(&object, &deployment(), "b", true);
    }
}
