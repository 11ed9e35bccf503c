//! Objects in the version that is asked for, through the definition's webhook
//! (`apiextensions.k8s.io/v1` ConversionReview).
//!
//! A webhook decides about everything but metadata, of which only labels and annotations are
//! its: an answer that changes what the object is, is refused.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use hull_api::{
    ApiError, Kind, ObjectExt,
    custom::{Converter, CustomResource},
    status::Reason,
};
use hull_store::Revision;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    handlers::Backend,
    limits,
    watch_cache::{CachedObject, Change},
    webhook_client::Client,
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

/// A webhook that is ready to be called, or why there is none.
type Ready = Result<Client, String>;

#[derive(Default)]
struct Kept {
    /// By storage name: what it was made of.
    clients: HashMap<&'static str, (Arc<Converter>, Arc<Ready>)>,
    /// By key, revision and version.
    objects: HashMap<(String, Revision, &'static str), Arc<CachedObject>>,
}

/// The webhooks that convert, and what they made lately: one call serves every watch of a change.
#[derive(Default)]
pub(crate) struct Conversions {
    kept: Mutex<Kept>,
}

impl Conversions {
    fn client(&self, kind: &Kind, converter: &Arc<Converter>) -> Arc<Ready> {
        let mut kept = self.kept.lock();
        if let Some((of, ready)) = kept.clients.get(kind.storage)
            && of == converter
        {
            return ready.clone();
        }
        let read = Client::read(&converter.client).map_err(|error| error.to_string());
        let ready = Arc::new(read);
        // What another webhook made counts no more.
        kept.objects.clear();
        let entry = (converter.clone(), ready.clone());
        kept.clients.insert(kind.storage, entry);
        ready
    }

    fn find(&self, kind: &Kind, object: &CachedObject) -> Option<Arc<CachedObject>> {
        let key = (object.key.clone(), object.revision, kind.version);
        self.kept.lock().objects.get(&key).cloned()
    }

    fn keep(&self, kind: &Kind, object: &Arc<CachedObject>) {
        let mut kept = self.kept.lock();
        if kept.objects.len() >= limits::KEPT_CONVERSIONS {
            kept.objects.clear();
        }
        let key = (object.key.clone(), object.revision, kind.version);
        kept.objects.insert(key, object.clone());
    }
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
        let converted = self.convert(kind, &custom, vec![object], &version).await?;
        let object = converted.into_iter().next().unwrap_or_default();
        Ok(custom.served(object))
    }

    /// An object of the version of `kind` as it is stored.
    pub(crate) async fn to_storage(&self, kind: &Kind, object: Value) -> Result<Value, ApiError> {
        match kind.strategy.custom() {
            Some(custom)
                if custom.converter.is_some() && custom.stored_as != custom.group_version() =>
            {
                let version = custom.stored_as.clone();
                let converted = self.convert(kind, &custom, vec![object], &version).await?;
                Ok(converted.into_iter().next().unwrap_or_default())
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
        let (mut places, mut foreign) = (Vec::new(), Vec::new());
        for (index, object) in objects.iter_mut().enumerate() {
            if !custom.must_convert(&object.value) {
                continue;
            }
            match self.conversions.find(kind, object) {
                Some(found) => *object = found,
                None => {
                    places.push(index);
                    foreign.push(object.value.clone());
                }
            }
        }
        if foreign.is_empty() {
            return Ok(objects);
        }
        let version = custom.group_version();
        let values = self.convert(kind, &custom, foreign, &version).await?;
        for (index, value) in places.into_iter().zip(values) {
            let Some(object) = objects.get_mut(index) else {
                continue;
            };
            *object = Arc::new(CachedObject {
                key: object.key.clone(),
                revision: object.revision,
                json: Bytes::from(value.to_string()),
                value,
            });
            self.conversions.keep(kind, object);
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
            })
        });
        Ok(rebuilt.collect())
    }

    /// Sends objects through the webhook of their definition.
    async fn convert(
        &self,
        kind: &Kind,
        custom: &CustomResource,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, ApiError> {
        let Some(converter) = &custom.converter else {
            return Ok(objects);
        };
        let from = objects.first().map_or("", |one| one.str_at("/apiVersion"));
        let about = format!("{from}, Kind={}", custom.kind);
        let ready = self.conversions.client(kind, converter);
        let outcome = self.ask(&ready, converter, objects, version).await;
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
        ready: &Ready,
        converter: &Converter,
        objects: Vec<Value>,
        version: &str,
    ) -> Result<Vec<Value>, ConversionError> {
        let client = ready
            .as_ref()
            .map_err(|why| ConversionError::Failed(why.clone()))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": converter.review,
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
