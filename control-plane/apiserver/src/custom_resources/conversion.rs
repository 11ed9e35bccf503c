//! Objects in the version that is asked for, through the definition's webhook
//! (`apiextensions.k8s.io/v1` ConversionReview).
//!
//! A webhook decides about everything but metadata, of which only labels and annotations are
//! its: an answer that changes what the object is, is refused.

use std::sync::Arc;

use hull_api::{ApiError, Kind, ObjectExt, custom::CustomResource, status::Reason};
use serde_json::{Value, json};

use super::conversion_cache::Webhook;
use crate::{
    handlers::Backend,
    limits,
    watch_cache::{CachedObject, Change, Frames},
};

/// Why objects were not converted, without the kind that it is about.
#[derive(Debug, thiserror::Error)]
enum ConversionError {
    /// It did not answer, or said no.
    #[error("failed: {0}")]
    Failed(String),
    /// It answered something else than the objects.
    #[error("returned {got} objects, expected {expected}")]
    Count { got: usize, expected: usize },
    /// It answered with something that the object cannot become.
    #[error("returned invalid converted object at index {index}: {why}")]
    Object { index: usize, why: String },
}

/// An object that needs the webhook, and its place in what was asked for.
type Foreign = (usize, Arc<CachedObject>);

/// The objects of one call each, in order.
fn batches(mut rest: &[Foreign]) -> impl Iterator<Item = &[Foreign]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(_, object): &&Foreign| {
            bytes += object.json_len();
            bytes <= limits::CONVERSION_BATCH_BYTES
        };
        let most = rest.iter().take(limits::CONVERSION_BATCH_OBJECTS);
        let count = most.take_while(fits).count().max(1);
        let (batch, left) = rest.split_at(count.min(rest.len()));
        rest = left;
        (!batch.is_empty()).then_some(batch)
    })
}

impl Backend {
    /// A stored object in the version of `kind`.
    pub(crate) async fn to_served(&self, kind: &Kind, object: Value) -> Result<Value, ApiError> {
        let Some(custom) = kind.strategy.custom() else {
            return Ok(kind.to_served(object));
        };
        if !custom.must_convert(&object) {
            return Ok(custom.served(object));
        }
        let version = custom.group_version();
        let object = self.convert_one(kind, &custom, object, &version).await?;
        Ok(custom.served(object))
    }

    /// An object of the version of `kind` as it is stored.
    pub(crate) async fn to_storage(&self, kind: &Kind, object: Value) -> Result<Value, ApiError> {
        match kind.strategy.custom() {
            Some(custom)
                if custom.converter.is_some() && custom.stored_as != custom.group_version() =>
            {
                let version = &custom.stored_as;
                self.convert_one(kind, &custom, object, version).await
            }
            _ => Ok(kind.to_storage(object)),
        }
    }

    /// Cached objects of which none needs the webhook any more, in the same order.
    pub(crate) async fn converted(
        &self,
        kind: &Kind,
        mut objects: Vec<Arc<CachedObject>>,
    ) -> Result<Vec<Arc<CachedObject>>, ApiError> {
        let Some(custom) = kind.strategy.custom() else {
            return Ok(objects);
        };
        let Some(converter) = &custom.converter else {
            return Ok(objects);
        };
        // Before anything that was kept counts: it may be another one by now.
        let webhook = self.conversions.webhook(kind, converter);
        let mut foreign: Vec<Foreign> = Vec::new();
        for (index, object) in objects.iter_mut().enumerate() {
            if !custom.must_convert(&object.parts(&["apiVersion"])) {
                continue;
            }
            match self.conversions.find(kind, &webhook, object) {
                Some(found) => *object = found,
                None => foreign.push((index, object.clone())),
            }
        }
        let version = custom.group_version();
        for batch in batches(&foreign) {
            let values = batch.iter().map(|(_, object)| object.parsed());
            let values = values.collect();
            let values = self.convert(kind, &webhook, values, &version).await?;
            for ((index, original), value) in batch.iter().zip(values) {
                let (key, revision) = (original.key.clone(), original.revision);
                let made = CachedObject::of_value(key, revision, &value);
                let made = Arc::new(made.map_err(ApiError::internal)?);
                self.conversions.keep(kind, &webhook, &made);
                if let Some(object) = objects.get_mut(*index) {
                    *object = made;
                }
            }
        }
        Ok(objects)
    }

    /// Changes whose objects need no webhook any more.
    pub(crate) async fn converted_changes(
        &self,
        kind: &Kind,
        changes: Vec<Arc<Change>>,
    ) -> Result<Vec<Arc<Change>>, ApiError> {
        let custom = kind.strategy.custom();
        if custom.is_none_or(|custom| custom.converter.is_none()) {
            return Ok(changes);
        }
        let both = |change: &Arc<Change>| [change.current.clone(), change.previous.clone()];
        let objects = changes.iter().flat_map(both).flatten().collect();
        let mut converted = self.converted(kind, objects).await?.into_iter();
        let rebuilt = changes.iter().map(|change| {
            Arc::new(Change {
                revision: change.revision,
                current: change.current.as_ref().and_then(|_| converted.next()),
                previous: change.previous.as_ref().and_then(|_| converted.next()),
                frames: Frames::default(),
            })
        });
        Ok(rebuilt.collect())
    }

    async fn convert_one(
        &self,
        kind: &Kind,
        custom: &CustomResource,
        object: Value,
        version: &str,
    ) -> Result<Value, ApiError> {
        let Some(converter) = &custom.converter else {
            return Ok(object);
        };
        let webhook = self.conversions.webhook(kind, converter);
        let converted = self.convert(kind, &webhook, vec![object], version).await?;
        Ok(converted.into_iter().next().unwrap_or_default())
    }

    /// Sends objects through a webhook, in one call.
    async fn convert(
        &self,
        kind: &Kind,
        webhook: &Webhook,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let from = objects.first().map_or("", |one| one.str_at("/apiVersion"));
        let about = format!("{from}, Kind={}", kind.kind);
        let outcome = self.ask(webhook, objects, version).await;
        outcome.map_err(|error| {
            tracing::warn!(definition = kind.storage, %error, "conversion webhook");
            ApiError::new(
                Reason::InternalError,
                format!("conversion webhook for {about} {error}"),
            )
        })
    }

    async fn ask(
        &self,
        webhook: &Webhook,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, ConversionError> {
        let client = webhook
            .client
            .as_ref()
            .map_err(|why| ConversionError::Failed(why.clone()))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": webhook.converter.review,
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": version, "objects": objects},
        });
        let answer = client
            .post(&self.cache, &review, limits::CONVERSION_TIMEOUT)
            .await
            .map_err(|error| ConversionError::Failed(error.to_string()))?;
        read_answer(&answer, &uid, objects, version)
    }
}

fn read_answer(
    answer: &Value,
    uid: &str,
    originals: Vec<Value>,
    version: &str,
) -> Result<Vec<Value>, ConversionError> {
    let failed = |why: String| Err(ConversionError::Failed(why));
    let Some(response) = answer.get("response") else {
        return failed("no response provided".to_string());
    };
    if response.str_at("/uid") != uid {
        let got = response.str_at("/uid");
        return failed(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    if response.str_at("/result/status") != "Success" {
        return match response.str_at("/result/message") {
            "" => {
                let status = response.str_at("/result/status");
                failed(format!(
                    "response.result.status was '{status}', not 'Success'"
                ))
            }
            message => failed(message.to_string()),
        };
    }
    let converted = response.list_at("/convertedObjects");
    if converted.len() != originals.len() {
        return Err(ConversionError::Count {
            got: converted.len(),
            expected: originals.len(),
        });
    }
    let pairs = converted.iter().zip(&originals).enumerate();
    pairs
        .map(|(index, (converted, original))| {
            accept(converted, original, version)
                .map_err(|why| ConversionError::Object { index, why })
        })
        .collect()
}

/// The converted object with the metadata that the webhook may not change.
fn accept(converted: &Value, original: &Value, version: &str) -> Result<Value, String> {
    let wrong = |what: &str, expected: &str, received: &str| {
        Err(format!(
            "invalid {what} (expected {expected}, received {received})"
        ))
    };
    if converted.str_at("/apiVersion") != version {
        return wrong("groupVersion", version, converted.str_at("/apiVersion"));
    }
    for (what, pointer) in [
        ("kind", "/kind"),
        ("name", "/metadata/name"),
        ("namespace", "/metadata/namespace"),
        ("UID", "/metadata/uid"),
    ] {
        let (expected, received) = (original.str_at(pointer), converted.str_at(pointer));
        if expected != received {
            return wrong(what, expected, received);
        }
    }
    let mut object = converted.clone();
    object.set_at(
        &["metadata"],
        original.get("metadata").cloned().unwrap_or_default(),
    );
    for field in ["labels", "annotations"] {
        match converted.pointer(&format!("/metadata/{field}")) {
            Some(Value::Object(map)) if map.values().all(Value::is_string) => {
                object.set_at(&["metadata", field], Value::Object(map.clone()));
            }
            None | Some(Value::Null) => drop(object.remove_at(&["metadata", field])),
            Some(_) => return Err(format!("invalid metadata.{field}: not a map of strings")),
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tab(version: &str) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Tab",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "generation": 3}})
    }

    fn answer(objects: Value) -> Value {
        json!({"response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    fn refusal(answer: &Value) -> String {
        let outcome = read_answer(answer, "1", vec![tab("v1")], "example.com/v2");
        outcome.unwrap_err().to_string()
    }

    /// JSON of the smallest object here, in bytes.
    const LEAST: usize = r#"{"metadata":{"name":""}}"#.len();

    #[test]
    fn batches_are_bounded_by_number_and_bytes_and_hold_an_object_at_least() {
        let sizes = |sizes: &[usize]| -> Vec<usize> {
            let object = |(index, size): (usize, &usize)| {
                let name = " ".repeat(size - LEAST);
                let object = json!({"metadata": {"name": name}});
                let object = CachedObject::of_value("".into(), 0, &object);
                (index, Arc::new(object.unwrap()))
            };
            let foreign: Vec<Foreign> = sizes.iter().enumerate().map(object).collect();
            let all: Vec<usize> = batches(&foreign).flatten().map(|one| one.0).collect();
            assert_eq!(all, (0..sizes.len()).collect::<Vec<_>>());
            batches(&foreign).map(<[Foreign]>::len).collect()
        };
        let most = limits::CONVERSION_BATCH_BYTES;
        assert!(sizes(&[]).is_empty());
        assert_eq!(sizes(&[LEAST; 250]), [100, 100, 50]);
        assert_eq!(sizes(&[most / 2; 5]), [2, 2, 1]);
        let mixed = [LEAST, most, most + 1, most - LEAST, LEAST, LEAST];
        assert_eq!(sizes(&mixed), [1, 1, 1, 2, 1]);
    }

    #[test]
    fn metadata_is_kept_but_for_labels_and_annotations() {
        let mut made = tab("v2");
        made["metadata"]["generation"] = json!(9);
        made["metadata"]["labels"] = json!({"a": "b"});
        let answer = answer(json!([made]));
        let objects = read_answer(&answer, "1", vec![tab("v1")], "example.com/v2").unwrap();
        assert_eq!(objects[0]["metadata"]["generation"], 3);
        assert_eq!(objects[0]["metadata"]["labels"]["a"], "b");
        assert_eq!(objects[0]["apiVersion"], "example.com/v2");
    }

    #[test]
    fn answers_that_cannot_be_are_refused() {
        assert_eq!(refusal(&json!({})), "failed: no response provided");
        assert_eq!(
            refusal(&answer(json!([]))),
            "returned 0 objects, expected 1"
        );
        assert_eq!(
            refusal(&answer(json!([tab("v1")]))),
            "returned invalid converted object at index 0: invalid groupVersion (expected example.com/v2, received example.com/v1)"
        );
        let mut other = tab("v2");
        other["metadata"]["name"] = json!("b");
        assert_eq!(
            refusal(&answer(json!([other]))),
            "returned invalid converted object at index 0: invalid name (expected a, received b)"
        );
        let said =
            json!({"response": {"uid": "1", "result": {"status": "Failed", "message": "no"}}});
        assert_eq!(refusal(&said), "failed: no");
    }
}
