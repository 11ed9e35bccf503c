//! Everything that netd follows, as one stream.

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::NetdConfig;
use crate::ports;
use crate::ports::watch::Attachments;
use crate::watch::{Change, follow};

/// One change.
pub(super) enum Input {
    Service(Change<Service>),
    Slice(Change<EndpointSlice>),
    Node(Change<Node>),
    Attachments(Attachments),
    Policy(Change<NetworkPolicy>),
    Pod(Change<Pod>),
    Namespace(Change<Namespace>),
}

/// Starts the watches; they end with `stop`.
pub(super) fn watch(
    client: &Client,
    config: &NetdConfig,
    input: &mpsc::Sender<Input>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let services = Api::<Service>::all(client.clone());
    let slices = Api::<EndpointSlice>::all(client.clone());
    let nodes = Api::<Node>::all(client.clone());
    let everything = watcher::Config::default;
    let input = || input.clone();
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        services,
        everything(),
        input(),
        Input::Service,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        slices,
        everything(),
        input(),
        Input::Slice,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        nodes,
        everything(),
        input(),
        Input::Node,
    )));
    let policies = Api::<NetworkPolicy>::all(client.clone());
    let pods = Api::<Pod>::all(client.clone());
    let namespaces = Api::<Namespace>::all(client.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        policies,
        everything(),
        input(),
        Input::Policy,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        pods,
        everything(),
        input(),
        Input::Pod,
    )));
    tasks.spawn(stop.clone().run_until_cancelled_owned(follow(
        namespaces,
        everything(),
        input(),
        Input::Namespace,
    )));
    let (found, mut attachments) = mpsc::channel(1);
    tasks.spawn(
        stop.clone()
            .run_until_cancelled_owned(ports::watch::follow(config.cni_records.clone(), found)),
    );
    let input = input();
    tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
        while let Some(found) = attachments.recv().await {
            if input.send(Input::Attachments(found)).await.is_err() {
                return;
            }
        }
    }));
}
