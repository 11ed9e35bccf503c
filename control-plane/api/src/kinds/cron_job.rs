//! CronJob.

use serde_json::Value;

use super::{
    PLAIN, job,
    workload::{self, CONTAINERS, IMAGES, SELECTOR},
};
use crate::{
    ObjectExt, cron,
    field::{Errors, Path},
    object::{default_text, default_to},
    registry::{self, Kind, Subresource},
    table::{self, Column},
    time,
};

/// `batch/v1` CronJob.
pub static CRON_JOBS: Kind = Kind {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    subresources: &[Subresource::Status],
    schema: "batch.CronJob",
    storage: "cronjobs",
    strategy: &Strategy,
    ..PLAIN
};

struct Strategy;

/// Its jobs' names are eleven characters longer, and must fit into a label.
const MAX_NAME: usize = 52;

const COLUMNS: &[Column] = &[
    table::NAME,
    table::column("Schedule", "When jobs are made, in cron format."),
    table::column("Timezone", "The time zone of the schedule."),
    table::column("Suspend", "No jobs are made."),
    table::number("Active", "Jobs that run."),
    table::column("Last Schedule", "When the last job was made."),
    table::AGE,
    CONTAINERS,
    IMAGES,
    SELECTOR,
];

impl registry::Strategy for Strategy {
    fn apply_defaults(&self, object: &mut Value) {
        let spec = object.map_mut(&["spec"]);
        default_text(spec, "concurrencyPolicy", "Allow");
        default_to(spec, "suspend", false);
        default_to(spec, "successfulJobsHistoryLimit", 3);
        default_to(spec, "failedJobsHistoryLimit", 1);
        object.map_mut(&["spec", "jobTemplate", "metadata"]);
        if let Some(template) = object.pointer_mut("/spec/jobTemplate") {
            // What only the job itself defaults stays out of the template.
            let before = template.pointer("/spec").cloned().unwrap_or_default();
            job::default_spec(template);
            for field in [
                "completions",
                "parallelism",
                "backoffLimit",
                "completionMode",
                "suspend",
                "manualSelector",
                "podReplacementPolicy",
            ] {
                if before.get(field).is_none() {
                    template.remove_at(&["spec", field]);
                }
            }
        }
    }

    fn validate(&self, object: &Value, errors: &mut Errors) {
        let spec = Path::new("spec");
        if object.name().len() > MAX_NAME {
            errors.invalid(
                &Path::new("metadata.name"),
                object.name(),
                format!("must be no more than {MAX_NAME} characters"),
            );
        }
        validate_schedule(object, &spec, errors);
        let policy = object.str_at("/spec/concurrencyPolicy");
        errors.check_supported(
            &spec.child("concurrencyPolicy"),
            policy,
            &["Allow", "Forbid", "Replace"],
        );
        workload::validate_counts(
            object,
            "spec",
            &[
                "startingDeadlineSeconds",
                "successfulJobsHistoryLimit",
                "failedJobsHistoryLimit",
            ],
            errors,
        );
        let path = spec.child("jobTemplate").child("spec");
        let template = object
            .pointer("/spec/jobTemplate/spec")
            .unwrap_or(&Value::Null);
        if let Some(selector) = template.get("selector") {
            errors.invalid(
                &path.child("selector"),
                selector.clone(),
                "`selector` will be auto-generated",
            );
        }
        if template.bool_at("/manualSelector") {
            errors.not_supported(&path.child("manualSelector"), true, &["nil", "false"]);
        }
        let mut complete = template.clone();
        default_text(complete.map_mut(&[]), "completionMode", "NonIndexed");
        job::validate_spec(&complete, &path, errors);
    }

    fn has_status(&self) -> bool {
        true
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Value, now: jiff::Timestamp) -> Vec<Value> {
        let last = match time::parse(object.str_at("/status/lastScheduleTime")) {
            Some(last) => time::human_duration(now.as_second() - last.as_second()),
            None => "<none>".to_string(),
        };
        let zone = match object.str_at("/spec/timeZone") {
            "" => "<none>",
            zone => zone,
        };
        let template = object
            .pointer("/spec/jobTemplate/spec/template/spec")
            .unwrap_or(&Value::Null);
        let [containers, images] = workload::container_cells(template);
        vec![
            Value::from(object.name()),
            Value::from(object.str_at("/spec/schedule")),
            Value::from(zone),
            Value::from(if object.bool_at("/spec/suspend") {
                "True"
            } else {
                "False"
            }),
            Value::from(object.list_at("/status/active").len()),
            Value::from(last),
            table::age_cell(object, now),
            containers,
            images,
            workload::selector_cell(object.pointer("/spec/jobTemplate/spec/selector")),
        ]
    }
}

fn validate_schedule(object: &Value, spec: &Path, errors: &mut Errors) {
    let path = spec.child("schedule");
    let schedule = object.str_at("/spec/schedule");
    if schedule.is_empty() {
        errors.required(&path, "");
    } else if schedule.contains("TZ") {
        errors.invalid(
            &path,
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    } else if let Err(why) = cron::Schedule::parse(schedule) {
        errors.invalid(&path, schedule, why.to_string());
    }
    if let Some(Value::String(zone)) = object.pointer("/spec/timeZone") {
        let path = spec.child("timeZone");
        if zone.is_empty() {
            errors.invalid(&path, "", "timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("local") {
            errors.invalid(
                &path,
                zone.as_str(),
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        } else if jiff::tz::TimeZone::get(zone).is_err() {
            errors.invalid(&path, zone.as_str(), format!("unknown time zone {zone}"));
        }
    }
}
