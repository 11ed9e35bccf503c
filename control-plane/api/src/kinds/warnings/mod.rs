//! What a client is told about an object that is valid and yet likely not what was meant:
//! deprecated fields and labels, parts that hide or overlap each other, values that will be
//! refused one day. In Kubernetes' words; nothing is refused here.
//!
//! ```text
//! warnings ─► one function per kind
//!                 pod, pod templates ─► pod ─► volumes, ports
//!                 services, ingresses, policies, slices ─► network
//!                 claims, volumes, classes ─► storage ─► node: labels
//! ```

mod network;
mod node;
mod pod;
mod ports;
mod storage;
#[cfg(test)]
mod tests;
mod volumes;

use serde_json::Value;

use crate::{ObjectExt, field::Path, names, quantity::Quantity, registry::Kind};

/// What is told so far.
#[derive(Debug, Default)]
struct Warnings(Vec<String>);

impl Warnings {
    fn tell(&mut self, text: impl Into<String>) {
        self.0.push(text.into());
    }

    fn at(&mut self, path: &Path, text: impl std::fmt::Display) {
        self.0.push(format!("{path}: {text}"));
    }
}

/// What is told about a new object, or about one that takes `old`'s place.
pub fn warnings(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut out = Warnings::default();
    match kind.schema {
        // Of pods that are there, programs take care.
        "core.Pod" if old.is_none() => {
            name(new, "the Pod's hostname", &mut out);
            pod::of_pod(new, &mut out);
        }
        "core.PodTemplate" => pod::of_template(new.get("template"), "template", &mut out),
        "core.ReplicationController"
        | "apps.Deployment"
        | "apps.ReplicaSet"
        | "apps.DaemonSet"
        | "apps.StatefulSet"
        | "batch.Job"
        | "batch.CronJob" => workload(kind.schema, new, old, &mut out),
        "core.Service" => network::of_service(new, &mut out),
        "networking.Ingress" if old.is_none() => network::of_ingress(new, &mut out),
        "networking.NetworkPolicy" => network::of_policy(new, &mut out),
        "core.Endpoints" => network::of_endpoints(new, &mut out),
        "discovery.EndpointSlice" => network::of_slice(new, &mut out),
        "core.PersistentVolumeClaim" => storage::of_claim(new, &mut out),
        "core.PersistentVolume" => storage::of_volume(new, &mut out),
        "storage.StorageClass" => storage::of_class(new, &mut out),
        "storage.CSIStorageCapacity" => storage::of_capacity(new, &mut out),
        "core.Node" => node::of_node(new, &mut out),
        "node.RuntimeClass" => node::of_runtime_class(new, &mut out),
        "core.ServiceAccount" => of_account(new, old, &mut out),
        _ => {}
    }
    out.0
}

/// Kinds with a pod template: what concerns it is told when it changes.
fn workload(schema: &str, new: &Value, old: Option<&Value>, out: &mut Warnings) {
    let named = !matches!(schema, "apps.DaemonSet" | "apps.StatefulSet");
    if named && old.is_none() {
        name(new, "Pod names and hostnames", out);
    }
    let generation = "/metadata/generation";
    if old.is_none_or(|old| old.pointer(generation) != new.pointer(generation)) {
        match schema {
            "batch.Job" => job(new.get("spec"), "spec", out),
            "batch.CronJob" => {
                job(
                    new.pointer("/spec/jobTemplate/spec"),
                    "spec.jobTemplate.spec",
                    out,
                );
            }
            _ => pod::of_template(new.pointer("/spec/template"), "spec.template", out),
        }
        if schema == "apps.StatefulSet" {
            stateful_set(new, out);
        }
    }
    if schema == "batch.CronJob" && old.is_some() && new.str_at("/spec/schedule").contains("TZ") {
        out.tell(
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
        );
    }
}

fn stateful_set(object: &Value, out: &mut Warnings) {
    let claims = Path::new("spec.volumeClaimTemplates");
    for (index, claim) in object
        .list_at("/spec/volumeClaimTemplates")
        .iter()
        .enumerate()
    {
        storage::of_claim_spec(claim.get("spec"), &claims.index(index), out);
    }
    if object
        .int_at("/spec/revisionHistoryLimit")
        .is_some_and(|limit| limit < 0)
    {
        out.tell(
            "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended",
        );
    }
}

/// Completions and parallelism of an indexed job beyond which its status cannot hold which
/// indexes are done.
const MANY_COMPLETIONS: i64 = 100_000;
const MUCH_PARALLELISM: i64 = 10_000;

fn job(spec: Option<&Value>, path: &str, out: &mut Warnings) {
    let Some(spec) = spec else { return };
    let above = |pointer: &str, most: i64| spec.int_at(pointer).is_some_and(|count| count > most);
    if spec.str_at("/completionMode") == "Indexed"
        && above("/completions", MANY_COMPLETIONS)
        && above("/parallelism", MUCH_PARALLELISM)
    {
        out.at(
            &Path::new(path),
            "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail",
        );
    }
    pod::of_template(spec.get("template"), &format!("{path}.template"), out);
}

fn name(object: &Value, used_in: &str, out: &mut Warnings) {
    let wrong = names::label(object.name());
    if !wrong.is_empty() {
        out.tell(format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            wrong.join(" ")
        ));
    }
}

const MOUNTABLE_SECRETS: &str = "kubernetes.io/enforce-mountable-secrets";

fn of_account(new: &Value, old: Option<&Value>, out: &mut Warnings) {
    let has = |object: &Value| annotation(object, MOUNTABLE_SECRETS).is_some();
    if has(new) && !old.is_some_and(has) {
        out.at(
            &annotations("").key(MOUNTABLE_SECRETS),
            "deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets",
        );
    }
}

/// The path of an object's annotations, below `parent`.
fn annotations(parent: &str) -> Path {
    Path::new(parent).child("metadata").child("annotations")
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    object.map_at("/metadata/annotations")?.get(key)
}

/// An amount of bytes that is no whole number.
fn fraction_of_bytes(amounts: Option<&Value>, name: &str, path: &Path, out: &mut Warnings) {
    let text = amounts
        .and_then(|amounts| amounts.get(name))
        .and_then(Value::as_str);
    let amount = text.and_then(|text| text.parse::<Quantity>().ok());
    if let (Some(text), Some(amount)) = (text, amount)
        && amount.milli_value() % 1000 != 0
    {
        let words = format!("fractional byte value {text:?} is invalid, must be an integer");
        out.at(&path.key(name), words);
    }
}
