//! Names and order stay.

use k8s_openapi::api::apps::v1::StatefulSet;

use super::*;
use crate::statefulset::StatefulSetController;

#[tokio::test]
async fn stateful_sets_keep_order_and_names() {
    for seed in seeds() {
        let mut world = World::new(seed);
        let writer = world.writer();
        let controller = StatefulSetController::new(
            writer,
            recorder(),
            world.informer(),
            world.informer(),
            world.informer(),
            world.informer(),
        );
        let controllers: Vec<Arc<dyn Controller>> = vec![controller];
        let spec = json!({
            "replicas": 4, "serviceName": "db",
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {}}]
        });
        world.api.seed::<StatefulSet>(workload("db", spec));
        for _ in 0..STEPS {
            world.live("StatefulSet", ROUGH);
            let look = |world: &mut World| {
                let known = ["db-0", "db-1", "db-2", "db-3"];
                for pod in world.owned("StatefulSet") {
                    let name = pod.metadata.name.unwrap();
                    assert!(known.contains(&&*name), "seed {seed}: {name}");
                }
            };
            world.step(&controllers, look).await;
        }
        let keys = [Key::new("shop", "db")];
        world
            .calm(&controllers, &keys, |world| world.tend_all("StatefulSet"))
            .await;
        assert_eq!(world.owned("StatefulSet").len(), 4, "seed {seed}");
        let status = world.api.all::<StatefulSet>()[0].status.clone().unwrap();
        assert_eq!(status.ready_replicas, Some(4), "seed {seed}");
    }
}
