//! An API server that fails now and then.

use std::sync::Arc;

use kube::api::{DeleteParams, DynamicObject};
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::runtime::{
    Target, WriteError, Writer,
    fake::{FakeApi, refused},
    writer::Served,
};

/// Share of the requests that fail.
const FAULTS: f64 = 0.15;

/// See the module.
pub(super) struct Faulty {
    api: Arc<FakeApi>,
    random: Mutex<StdRng>,
    rate: Mutex<f64>,
}

enum Fault {
    Before(WriteError),
    After,
}

impl Faulty {
    pub(super) fn new(api: Arc<FakeApi>, seed: u64) -> Self {
        Faulty {
            api,
            random: Mutex::new(StdRng::seed_from_u64(seed ^ 0xfa)),
            rate: Mutex::new(FAULTS),
        }
    }

    /// From now on everything succeeds.
    pub(super) fn stop(&self) {
        *self.rate.lock() = 0.0;
    }

    fn fault(&self) -> Option<Fault> {
        let mut random = self.random.lock();
        if !random.random_bool(*self.rate.lock()) {
            return None;
        }
        Some(match random.random_range(0..3) {
            0 => Fault::Before(refused(409, "Conflict", "changed meanwhile")),
            1 => Fault::Before(refused(500, "InternalError", "time-out")),
            _ => Fault::After,
        })
    }

    /// Lets a request through, stops it, or loses its answer.
    async fn pass<T>(
        &self,
        request: impl Future<Output = Result<T, WriteError>>,
    ) -> Result<T, WriteError> {
        match self.fault() {
            Some(Fault::Before(error)) => Err(error),
            Some(Fault::After) => {
                request.await?;
                Err(refused(500, "InternalError", "the answer was lost"))
            }
            None => request.await,
        }
    }
}

#[async_trait::async_trait]
impl Writer for Faulty {
    async fn resources(&self) -> Result<Vec<Served>, WriteError> {
        self.api.resources().await
    }

    async fn get(&self, target: Target<'_>) -> Result<Value, WriteError> {
        self.pass(self.api.get(target)).await
    }

    async fn get_part(
        &self,
        target: Target<'_>,
        subresource: &'static str,
    ) -> Result<Value, WriteError> {
        self.pass(self.api.get_part(target, subresource)).await
    }

    async fn list(&self, target: Target<'_>) -> Result<Vec<DynamicObject>, WriteError> {
        self.pass(self.api.list(target)).await
    }

    async fn create(&self, target: Target<'_>, body: Value) -> Result<Value, WriteError> {
        if !target.name.is_empty() {
            return self.pass(self.api.create(target, body)).await;
        }
        // An object with a generated name whose creation looks failed is made again by design,
        // so the answers to these are not lost.
        match self.fault() {
            Some(Fault::Before(error)) => Err(error),
            _ => self.api.create(target, body).await,
        }
    }

    async fn replace(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        self.pass(self.api.replace(target, subresource, body)).await
    }

    async fn patch(
        &self,
        target: Target<'_>,
        subresource: Option<&'static str>,
        body: Value,
    ) -> Result<Value, WriteError> {
        self.pass(self.api.patch(target, subresource, body)).await
    }

    async fn delete(&self, target: Target<'_>, options: DeleteParams) -> Result<(), WriteError> {
        self.pass(self.api.delete(target, options)).await
    }
}
