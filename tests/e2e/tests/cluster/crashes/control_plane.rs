//! kill -9 of `hull up`: API server, store, scheduler, controllers, node agent and netd at once.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use hull_e2e::{cluster::Cluster, journal::Noted, kubectl::Kubectl, wait};

use super::{Bystander, COUNTER};
use crate::{pods::shell_pod, services::text};

/// Picks among the moments at which it is killed; by default another one each day.
const SEED: &str = "HULL_E2E_SEED";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const REPLICAS: usize = 1;

/// A moment in the life of a pod, told by what the runtime has noted.
type Moment = (&'static str, fn(&Noted) -> bool);

/// While pods are made, before any of them runs.
const CREATIONS: [Moment; 3] = [
    ("booting", Noted::boots),
    ("noted", |_| true),
    ("without a container", Noted::idles),
];
/// While pods go.
const DELETIONS: [Moment; 2] = [
    // The container has got its signal and takes its time.
    ("in its grace period", Noted::runs),
    ("being taken down", Noted::ends),
];
/// Of the new pods, while they replace the old ones.
const ROLLOUTS: [Moment; 2] = [
    ("booting", Noted::boots),
    ("without a container", Noted::idles),
];

/// Every container takes some seconds to end, and does so by itself.
const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling}
spec:
  replicas: 1
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  selector: {matchLabels: {app: rolling}}
  template:
    metadata: {labels: {app: rolling}}
    spec:
      containers:
      - name: main
        image: busybox
        command: [sh, -c, "trap 'sleep 15; exit 0' TERM; while :; do sleep 1; done"]
"#;

const SERVICE: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: steady}
spec:
  selector: {app: steady}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// While pods are made, while a deployment rolls out, and while pods go.
pub fn killed(cluster: &mut Cluster) -> Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().with_context(|| format!("{SEED}={seed}"))?,
        Err(_) => today()?,
    };
    killed_at(cluster, seed).with_context(|| format!("{SEED}={seed}"))
}

/// Days since 1970.
fn today() -> Result<usize> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(usize::try_from(now.as_secs() / DAY.as_secs())?)
}

fn killed_at(cluster: &mut Cluster, seed: usize) -> Result<()> {
    let kubectl = cluster.kubectl.clone();
    let before = cluster.traces()?;
    let mut steady = Steady::start(cluster)?;
    kubectl.apply_config_map("default", "acknowledged", "a", "b")?;

    kubectl.apply(DEPLOYMENT)?;
    let begun = kill_at(cluster, &CREATIONS, seed, &BTreeSet::new())?;
    steady.survives(cluster).context("killed during creation")?;
    ensure!(
        kubectl.get("configmaps", "acknowledged")?.is_some(),
        "an acknowledged write is lost"
    );
    let old = rolled_out(&kubectl)?;
    ensure!(old.is_superset(&begun), "{begun:?} were given up: {old:?}");

    kubectl.run(&["set", "env", "deployment/rolling", "VERSION=2"])?;
    let begun = kill_at(cluster, &ROLLOUTS, seed, &old)?;
    steady.survives(cluster).context("killed during rollout")?;
    let new = rolled_out(&kubectl)?;
    ensure!(new.is_superset(&begun), "{begun:?} were given up: {new:?}");
    ensure!(new.is_disjoint(&old), "{old:?} are still there: {new:?}");

    kubectl.run(&["delete", "deployment", "rolling"])?;
    wait::until("the deployment's pods to be deleted", 60, || {
        let all = kubectl.list("pods", &[("labelSelector", "app=rolling")])?;
        let deleted = all
            .iter()
            .all(|pod| !pod["metadata"]["deletionTimestamp"].is_null());
        Ok(deleted.then_some(()).ok_or_else(|| format!("{all:?}")))
    })?;
    kill_at(cluster, &DELETIONS, seed, &BTreeSet::new())?;
    steady.survives(cluster).context("killed during deletion")?;
    gone(&kubectl)?;

    kubectl.run(&["delete", "service/steady", "configmap/acknowledged"])?;
    kubectl.delete_pod("steady")?;
    cluster.wait_for_no_more(&before)
}

/// A pod behind a Service, which go on whatever happens.
struct Steady {
    pod: Bystander,
    address: String,
}

impl Steady {
    fn start(cluster: &Cluster) -> Result<Steady> {
        let kubectl = &cluster.kubectl;
        let page = "mkdir /www && hostname > /www/index.html && httpd -p 8080 -h /www";
        let yaml = shell_pod("steady", &format!("{page}; {COUNTER}"))
            .replace("name: steady", "name: steady, labels: {app: steady}");
        kubectl.apply(&yaml)?;
        kubectl.apply(SERVICE)?;
        let pod = Bystander::of(cluster, "steady")?;
        let service = kubectl.get("services", "steady")?.context("no service")?;
        let address = text(&service, "/spec/clusterIP")?.to_owned();
        let steady = Steady { pod, address };
        steady.serves(cluster)?;
        Ok(steady)
    }

    fn serves(&self, cluster: &Cluster) -> Result<()> {
        let page = cluster.http_get(&self.address, 80)?;
        ensure!(page.contains("steady"), "{page}");
        Ok(())
    }

    /// Both go on without anything that controls them, and with it again.
    fn survives(&mut self, cluster: &mut Cluster) -> Result<()> {
        self.serves(cluster).context("without hull")?;
        cluster.start_hull()?;
        self.serves(cluster).context("with hull again")?;
        self.pod.goes_on(cluster)
    }
}

/// kill -9 when one of the deployment's pods, `old` ones left aside, is at the moment that the seed
/// picks. Returns the names of those that there were.
fn kill_at(
    cluster: &mut Cluster,
    moments: &[Moment],
    seed: usize,
    old: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let (what, moment) = moments[seed % moments.len()];
    let new = |noted: &Noted| !old.contains(&noted.pod);
    cluster.pod_at("rolling-", what, |noted| new(noted) && moment(noted))?;
    cluster.kill_hull()?;
    let all = cluster.noted("rolling-").into_iter().filter(new);
    Ok(all.map(|noted| noted.pod).collect())
}

/// Waits until the deployment has rolled out; its pods, none of which was restarted.
fn rolled_out(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    kubectl.run(&["rollout", "status", "deployment/rolling", "--timeout=300s"])?;
    wait::until("nothing but the deployment's pods", 60, || {
        let all = kubectl.list("pods", &[("labelSelector", "app=rolling")])?;
        if all.len() != REPLICAS {
            return Ok(Err(format!("{} pods", all.len())));
        }
        let names = all.iter().map(|pod| {
            let status = &pod["status"]["containerStatuses"][0];
            ensure!(status["restartCount"] == 0, "restarted: {status}");
            Ok(text(pod, "/metadata/name")?.to_owned())
        });
        names.collect::<Result<_>>().map(Ok)
    })
}

fn gone(kubectl: &Kubectl) -> Result<()> {
    wait::until("the deployment's pods to be gone", 60, || {
        let left = kubectl.list("pods", &[("labelSelector", "app=rolling")])?;
        Ok(left
            .is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?}")))
    })
}
