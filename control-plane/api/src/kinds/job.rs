//! Job.

use serde_json::{Map, Value, json};

use super::{
    PLAIN, pod,
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};
use crate::{
    ObjectExt,
    field::{Errors, Path},
    object::{default_text, default_to},
    registry::{self, Kind, Subresource},
    selector::{LabelSelector, label},
    table::{self, Column},
    time,
};

/// `batch/v1` Job.
pub static JOBS: Kind = Kind {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    subresources: &[Subresource::Status],
    schema: "batch.Job",
    storage: "jobs",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

const BACKOFF_LIMIT: i64 = 6;
/// With indexes, so many completions at most.
const MAX_INDEXED: i64 = 1_000_000;
/// With indexes, so many pods at once at most.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_POLICY_RULES: usize = 20;
/// Labels that tie the pods to their job: the new ones and those of before.
const UID_LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];
const NAME_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Status", "Running, Complete, Failed or Suspended."),
    table::column("Completions", "Pods that succeeded of those wanted."),
    table::column("Duration", "From the first pod to the end."),
    table::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

/// Defaults of a job's spec, also that within a CronJob.
pub(super) fn default_spec(job: &mut Value) {
    let spec = job.map_mut(&["spec"]);
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        default_to(spec, "completions", 1);
    }
    default_to(spec, "parallelism", 1);
    if spec.get("backoffLimit").is_none() {
        let per_index = spec.contains_key("backoffLimitPerIndex");
        let limit = if per_index {
            i64::from(i32::MAX)
        } else {
            BACKOFF_LIMIT
        };
        spec.insert("backoffLimit".to_string(), json!(limit));
    }
    default_text(spec, "completionMode", "NonIndexed");
    default_to(spec, "suspend", false);
    default_to(spec, "manualSelector", false);
    let replacement = if spec.contains_key("podFailurePolicy") {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    default_text(spec, "podReplacementPolicy", replacement);
    if let Some(Value::Array(rules)) = job.pointer_mut("/spec/podFailurePolicy/rules") {
        for rule in rules {
            if let Some(Value::Array(patterns)) = rule.pointer_mut("/onPodConditions") {
                for pattern in patterns.iter_mut().filter_map(Value::as_object_mut) {
                    default_text(pattern, "status", "True");
                }
            }
        }
    }
    pod::default_template(job);
}

/// The labels that tie pods to their job, with their values.
fn own_labels(job: &Value) -> impl Iterator<Item = (&'static str, &str)> {
    let (uid, name) = (job.uid(), job.name());
    UID_LABELS
        .map(|key| (key, uid))
        .into_iter()
        .chain(NAME_LABELS.map(|key| (key, name)))
}

/// The selector and the labels that make a job's pods its own. Those that are there stay, and
/// are judged by [`validate_generated`].
fn generate_selector(job: &mut Value) {
    if job.bool_at("/spec/manualSelector") {
        return;
    }
    let wanted: Vec<(&str, Value)> = own_labels(job)
        .map(|(key, value)| (key, Value::from(value)))
        .collect();
    let uid = Value::from(job.uid());
    let labels = job.map_mut(&["spec", "template", "metadata", "labels"]);
    for (key, value) in wanted {
        labels.entry(key).or_insert(value);
    }
    let selected = job.map_mut(&["spec", "selector", "matchLabels"]);
    selected.entry(UID_LABELS[0]).or_insert(uid);
}

/// A selector that nobody vouches for by `manualSelector` must select this job's pods by their
/// generated labels, and nothing else.
fn validate_generated(job: &Value, errors: &mut Errors) {
    let Some(selector) = job.pointer("/spec/selector") else {
        return;
    };
    if job.bool_at("/spec/manualSelector") {
        return;
    }
    let labels = job.map_at("/spec/template/metadata/labels");
    let path = Path::new("spec.template.metadata.labels");
    for (key, value) in own_labels(job) {
        let words = format!("must be '{value}'");
        match labels.and_then(|labels| labels.get(key)) {
            None => errors.required(&path.key(key), &words),
            Some(found) if found != value => {
                let found = labels.cloned().map_or(Value::Null, Value::Object);
                errors.invalid(&path.key(key), found, words);
            }
            Some(_) => {}
        }
    }
    let own: Map<String, Value> = own_labels(job)
        .map(|(key, value)| (key.to_string(), Value::from(value)))
        .collect();
    if LabelSelector::from_object(selector).is_ok_and(|one| !one.matches(Some(&own))) {
        errors.invalid(
            &Path::new("spec.selector"),
            selector.clone(),
            "`selector` not auto-generated",
        );
    }
}

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        default_spec(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        generate_selector(object);
        object.set_at(&["status"], json!({}));
        object.set_at(&["metadata", "generation"], json!(1));
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        validate_generated(object, errors);
        match object.pointer("/spec/selector") {
            None => errors.required(&spec.child("selector"), ""),
            Some(selector) => {
                label::validate_object(Some(selector), &spec.child("selector"), errors);
                let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
                let fits = LabelSelector::from_object(selector)
                    .is_ok_and(|selector| selector.matches(template.labels()));
                if !fits {
                    workload::selector_mismatch(template, &spec.child("template"), errors);
                }
            }
        }
        let job_spec = object.get("spec").unwrap_or(&Value::Null);
        validate_spec(job_spec, &spec, errors);
    }

    fn validate_update(&self, new: &Value, old: &Value, errors: &mut Errors) {
        validate_update(new, old, errors);
    }

    fn validate_status_update(&self, new: &Value, _old: &Value, errors: &mut Errors) {
        workload::validate_counts(
            new,
            "status",
            &["active", "succeeded", "failed", "ready", "terminating"],
            errors,
        );
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["status.successful"]
    }

    fn field_value<'a>(&self, object: &'a Value, field: &str) -> Option<std::borrow::Cow<'a, str>> {
        (field == "status.successful").then(|| {
            object
                .int_at("/status/succeeded")
                .unwrap_or(0)
                .to_string()
                .into()
        })
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let mut row = vec![
            Value::from(object.name()),
            Value::from(status_word(object)),
            Value::from(completions(object)),
            Value::from(duration(object, now)),
            table::age_cell(object, now),
        ];
        row.extend(workload::template_cells(object));
        row
    }
}

fn status_word(job: &Value) -> &'static str {
    let holds = |wanted: &str| {
        job.list_at("/status/conditions").iter().any(|condition| {
            condition.str_at("/type") == wanted && condition.str_at("/status") == "True"
        })
    };
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if job.is_deleting() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else if holds("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn completions(job: &Value) -> String {
    let succeeded = job.int_at("/status/succeeded").unwrap_or(0);
    match (
        job.int_at("/spec/completions"),
        job.int_at("/spec/parallelism").unwrap_or(0),
    ) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: jiff::Timestamp) -> String {
    let Some(start) = time::parse(job.str_at("/status/startTime")) else {
        return String::new();
    };
    let end = time::parse(job.str_at("/status/completionTime")).unwrap_or(now);
    time::human_duration(end.as_second() - start.as_second())
}

/// Rules of a job's spec, also that within a CronJob.
pub(super) fn validate_spec(spec: &Value, path: &Path, errors: &mut Errors) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.check_non_negative(&path.child(field), spec.int_at(&format!("/{field}")));
    }
    validate_mode(spec, path, errors);
    let template = spec.get("template").unwrap_or(&Value::Null);
    let template_path = path.child("template");
    workload::validate_pod_template(template, &template_path, errors);
    let policy = template.str_at("/spec/restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        let path = template_path.child("spec").child("restartPolicy");
        let supported: Vec<&str> = vec!["Never", "OnFailure"];
        if policy == "Always" {
            errors.required(&path, "valid values: \"OnFailure\", \"Never\"");
        } else {
            errors.not_supported(&path, policy, &supported);
        }
    }
    validate_failure_policy(spec, policy, &path.child("podFailurePolicy"), errors);
    let replacement = spec.str_at("/podReplacementPolicy");
    if !replacement.is_empty() {
        let path = path.child("podReplacementPolicy");
        let allowed: &[&str] = match spec.get("podFailurePolicy") {
            Some(_) => &["Failed"],
            None => &["Failed", "TerminatingOrFailed"],
        };
        errors.check_supported(&path, replacement, allowed);
    }
}

fn validate_mode(spec: &Value, path: &Path, errors: &mut Errors) {
    let mode = spec.str_at("/completionMode");
    errors.check_supported(
        &path.child("completionMode"),
        mode,
        &["Indexed", "NonIndexed"],
    );
    if mode == "Indexed" {
        match spec.int_at("/completions") {
            None => errors.required(
                &path.child("completions"),
                "when completion mode is Indexed",
            ),
            Some(count) if count > MAX_INDEXED => errors.invalid(
                &path.child("completions"),
                count,
                format!(
                    "must be less than or equal to {MAX_INDEXED} when completion mode is Indexed"
                ),
            ),
            Some(_) => {}
        }
        let parallelism = spec.int_at("/parallelism").unwrap_or(0);
        if parallelism > MAX_INDEXED_PARALLELISM {
            errors.invalid(
                &path.child("parallelism"),
                parallelism,
                format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed"),
            );
        }
    } else {
        for (field, words) in [
            ("backoffLimitPerIndex", "requires indexed completion mode"),
            ("successPolicy", "requires indexed completion mode"),
        ] {
            if let Some(value) = spec.get(field) {
                errors.invalid(&path.child(field), value.clone(), words);
            }
        }
    }
    if let (Some(limit), None) = (
        spec.int_at("/maxFailedIndexes"),
        spec.get("backoffLimitPerIndex"),
    ) {
        errors.required(
            &path.child("backoffLimitPerIndex"),
            &format!("when maxFailedIndexes is specified ({limit})"),
        );
    }
}

fn validate_failure_policy(spec: &Value, restart: &str, path: &Path, errors: &mut Errors) {
    let Some(policy) = spec.get("podFailurePolicy") else {
        return;
    };
    if restart != "Never" {
        errors.invalid(
            path,
            policy.clone(),
            "only supported when template.spec.restartPolicy=Never",
        );
    }
    let rules = policy.list_at("/rules");
    let list = path.child("rules");
    if rules.len() > MAX_POLICY_RULES {
        errors.too_many(&list, rules.len(), MAX_POLICY_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = list.index(index);
        let action = rule.str_at("/action");
        if action.is_empty() {
            errors.required(&path.child("action"), "");
        } else {
            errors.check_supported(
                &path.child("action"),
                action,
                &["Count", "FailIndex", "FailJob", "Ignore"],
            );
        }
        let by_code = rule.get("onExitCodes");
        let by_condition = rule.list_at("/onPodConditions");
        match (by_code, by_condition.is_empty()) {
            (None, true) => errors.invalid(
                &path,
                rule.clone(),
                "specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (Some(_), false) => errors.invalid(
                &path,
                rule.clone(),
                "specifying both OnExitCodes and OnPodConditions is not supported",
            ),
            _ => {}
        }
        if let Some(codes) = by_code {
            let path = path.child("onExitCodes");
            errors.check_supported(
                &path.child("operator"),
                codes.str_at("/operator"),
                &["In", "NotIn"],
            );
            if codes.list_at("/values").is_empty() {
                errors.invalid(
                    &path.child("values"),
                    json!([]),
                    "at least one value is required",
                );
            }
        }
    }
}

/// While a job is suspended and never ran, its scheduling may still change.
fn validate_update(new: &Value, old: &Value, errors: &mut Errors) {
    let spec = Path::new("spec");
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        let pointer = format!("/spec/{field}");
        errors.check_immutable(
            &spec.child(field),
            new.pointer(&pointer),
            old.pointer(&pointer),
        );
    }
    let indexed = new.str_at("/spec/completionMode") == "Indexed";
    let completions = new.pointer("/spec/completions");
    if completions != old.pointer("/spec/completions") {
        let elastic = indexed && completions == new.pointer("/spec/parallelism");
        if !elastic {
            errors.invalid(
                &spec.child("completions"),
                completions.cloned().unwrap_or(Value::Null),
                "field is immutable",
            );
        }
    }
    let strip = |object: &Value| {
        let mut template = object
            .pointer("/spec/template")
            .cloned()
            .unwrap_or_default();
        if old.bool_at("/spec/suspend") && old.pointer("/status/startTime").is_none() {
            for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
                template.remove_at(&["spec", field]);
            }
            template.remove_at(&["metadata", "annotations"]);
            template.remove_at(&["metadata", "labels"]);
        }
        template
    };
    if strip(new) != strip(old) {
        errors.invalid(
            &spec.child("template"),
            new.pointer("/spec/template").cloned().unwrap_or_default(),
            "field is immutable",
        );
    }
}
