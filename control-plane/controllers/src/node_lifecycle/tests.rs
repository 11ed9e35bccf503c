use serde_json::Value;

use super::*;
use crate::runtime::fake::FakeApi;

struct Bench {
    api: Arc<FakeApi>,
    controller: Arc<NodeLifecycleController>,
    now: Instant,
}

fn bench() -> Bench {
    let api = FakeApi::new();
    let controller = NodeLifecycleController::new(
        api.clone(),
        Recorder::channel().0,
        Arc::default(),
        Arc::default(),
        Arc::default(),
        MONITOR_GRACE_PERIOD,
    );
    Bench {
        api,
        controller,
        now: Instant::now(),
    }
}

impl Bench {
    fn seed(&self, name: &str, ready: &str) {
        self.api.seed::<Node>(json!({
            "metadata": {"name": name},
            "spec": {"taints": [{"key": "mine", "effect": "NoSchedule"}]},
            "status": {"conditions": [
                {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}
            ]}
        }));
        self.api.seed::<Lease>(json!({
            "metadata": {"name": name, "namespace": LEASE_NAMESPACE},
            "spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}
        }));
    }

    fn renew(&self, name: &str, second: u32) {
        let time = format!(
            "2026-01-01T00:{:02}:{:02}.000000Z",
            second / 60,
            second % 60
        );
        let key = Key::new(LEASE_NAMESPACE, name);
        self.api
            .change("leases", &key, json!({"spec": {"renewTime": time}}));
    }

    fn pump(&self) {
        self.api.pump(&self.controller.nodes);
        self.api.pump(&self.controller.leases);
        self.api.pump(&self.controller.pods);
    }

    async fn look(&self) {
        self.pump();
        for node in self.controller.nodes.all() {
            self.controller.look(&node, self.now).await.unwrap();
        }
        self.pump();
    }

    fn node(&self, name: &str) -> Node {
        self.api
            .all::<Node>()
            .into_iter()
            .find(|node| node.metadata.name.as_deref() == Some(name))
            .unwrap()
    }

    fn taints(&self, name: &str) -> Vec<String> {
        let taints = self.node(name).spec.unwrap().taints.unwrap_or_default();
        let short = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        taints
            .iter()
            .map(|taint| format!("{}:{}", short(&taint.key), taint.effect))
            .collect()
    }

    fn ready(&self, name: &str) -> String {
        ready(&self.node(name)).unwrap().status.clone()
    }
}

#[tokio::test]
async fn a_silent_node_becomes_unknown_and_unreachable() {
    let mut bench = bench();
    bench.seed("silent", "True");
    bench.seed("well", "True");
    let pod: Value = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"nodeName": "silent", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}
    });
    bench.api.seed::<Pod>(pod);
    bench.look().await;
    assert_eq!(bench.taints("silent"), ["mine:NoSchedule"]);
    bench.now += MONITOR_GRACE_PERIOD + Duration::from_secs(1);
    bench.renew("well", 51);
    bench.look().await;
    assert_eq!(bench.ready("silent"), "Unknown");
    assert_eq!(
        bench.taints("silent"),
        [
            "mine:NoSchedule",
            "unreachable:NoSchedule",
            "unreachable:NoExecute"
        ]
    );
    assert_eq!(bench.ready("well"), "True");
    assert_eq!(bench.taints("well"), ["mine:NoSchedule"]);
    assert!(!pods::is_ready(&bench.api.all::<Pod>()[0]));
    bench.api.take_requests();
    bench.look().await;
    assert!(
        bench.api.take_requests().is_empty(),
        "nothing is written twice"
    );
}

#[tokio::test]
async fn a_node_that_returns_loses_the_taints() {
    let mut bench = bench();
    bench.seed("silent", "True");
    bench.seed("well", "True");
    bench.look().await;
    bench.now += MONITOR_GRACE_PERIOD * 2;
    bench.renew("well", 100);
    bench.look().await;
    let back = json!({"status": {"conditions": [
        {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:05:00Z"}
    ]}});
    bench.api.change("nodes", &Key::new("", "silent"), back);
    bench.look().await;
    assert_eq!(bench.taints("silent"), ["mine:NoSchedule"]);
}

#[tokio::test]
async fn a_renewed_lease_alone_is_a_sign_of_life() {
    let mut bench = bench();
    bench.seed("a", "True");
    for second in (0..300).step_by(40) {
        bench.renew("a", second);
        bench.look().await;
        bench.now += Duration::from_secs(40);
    }
    assert_eq!(bench.ready("a"), "True");
}

#[tokio::test]
async fn a_node_that_says_it_is_not_ready_is_tainted_so() {
    let bench = bench();
    bench.seed("sick", "False");
    bench.seed("well", "True");
    bench.look().await;
    assert_eq!(
        bench.taints("sick"),
        [
            "mine:NoSchedule",
            "not-ready:NoSchedule",
            "not-ready:NoExecute"
        ]
    );
}

#[tokio::test]
async fn nothing_is_evicted_while_no_node_reports() {
    let mut bench = bench();
    bench.seed("a", "True");
    bench.seed("b", "True");
    bench.look().await;
    bench.now += MONITOR_GRACE_PERIOD * 2;
    bench.look().await;
    bench.look().await;
    for node in ["a", "b"] {
        assert_eq!(
            bench.taints(node),
            ["mine:NoSchedule", "unreachable:NoSchedule"]
        );
    }
}

#[tokio::test]
async fn a_cordoned_node_is_tainted_until_it_is_not() {
    let bench = bench();
    bench.seed("a", "True");
    let cordon = |on: Value| json!({"spec": {"unschedulable": on}});
    bench
        .api
        .change("nodes", &Key::new("", "a"), cordon(json!(true)));
    bench.look().await;
    assert_eq!(
        bench.taints("a"),
        ["mine:NoSchedule", "unschedulable:NoSchedule"]
    );
    bench
        .api
        .change("nodes", &Key::new("", "a"), cordon(Value::Null));
    bench.look().await;
    assert_eq!(bench.taints("a"), ["mine:NoSchedule"]);
}
