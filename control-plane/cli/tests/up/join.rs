//! A second machine joins: here a second data directory, without a container runtime.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::{DEADLINE, Running, Setup, free_port, http_get, hull, mode, node_exists, text};

/// The machine that joins.
struct Machine<'a> {
    setup: &'a Setup,
    name: &'static str,
    /// The API server's.
    port: u16,
    node_port: u16,
    netd_port: u16,
}

impl<'a> Machine<'a> {
    fn new(setup: &'a Setup, name: &'static str) -> Self {
        Machine {
            setup,
            name,
            port: setup.port,
            node_port: free_port(),
            netd_port: free_port(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.setup.path(&format!("{}-{name}", self.name))
    }

    fn join(&self, arguments: &[&str]) -> Command {
        let mut command = hull();
        command
            .args(["node", "join"])
            .arg(format!("https://127.0.0.1:{}", self.port))
            .args(arguments)
            .arg("--data-dir")
            .arg(self.path("data"))
            .arg("--run-dir")
            .arg(self.path("run"))
            .arg("--pod-log-dir")
            .arg(self.path("logs"))
            .args(["--node-name", self.name, "--node-ip", "127.0.0.2"])
            .arg("--node-listen")
            .arg(format!("127.0.0.1:{}", self.node_port))
            .arg("--netd-listen")
            .arg(format!("127.0.0.1:{}", self.netd_port))
            .arg("--cri-endpoint")
            .arg(format!("unix://{}", self.path("none.sock").display()))
            .stdin(Stdio::null());
        command
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let log = std::fs::File::create(self.path("log")).unwrap();
        Running(self.join(arguments).stderr(log).spawn().unwrap())
    }

    fn fails(&self, arguments: &[&str], words: &str) {
        let output = self.join(arguments).output().unwrap();
        let said = text(&output);
        assert!(!output.status.success() && said.contains(words), "{said}");
        assert!(!said.contains("0123456789abcdef"), "the token is in {said}");
    }
}

struct Invitation {
    token: String,
    hash: String,
}

fn token_command(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = hull();
    command
        .arg("token")
        .args(arguments)
        .arg("--kubeconfig")
        .arg(setup.path("home/kubeconfig"));
    command
}

fn invite(setup: &Setup) -> Invitation {
    let output = token_command(setup, &["create", "--description", "a test"])
        .output()
        .unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let hash = said.split("--ca-hash ").nth(1).unwrap();
    let hash = hash.split_whitespace().next().unwrap().to_owned();
    assert!(said.contains(&format!("--token {token} ")), "{said}");
    Invitation { token, hash }
}

async fn get(client: &kube::Client, path: &str) -> serde_json::Value {
    let found = client.request_text(http_get(path)).await;
    found.map_or_else(
        |_| serde_json::Value::Null,
        |text| serde_json::from_str(&text).unwrap(),
    )
}

async fn registered(machine: &Machine<'_>, client: &kube::Client) {
    let begun = Instant::now();
    let path = format!("/api/v1/nodes/{}", machine.name);
    while get(client, &path).await["metadata"]["name"] != machine.name {
        let log = std::fs::read_to_string(machine.path("log")).unwrap_or_default();
        assert!(begun.elapsed() < DEADLINE, "not registered:\n{log}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_with_a_token_once_and_is_a_node_from_then_on() {
    let setup = Setup::new();
    let _cluster = setup.start();
    let client = setup.client().await;
    node_exists(&client).await;
    let invitation = invite(&setup);
    let machine = Machine::new(&setup, "n2");
    let arguments = ["--token", &invitation.token, "--ca-hash", &invitation.hash];
    let running = machine.start(&arguments);
    registered(&machine, &client).await;
    for file in ["client.pem", "serving.pem", "netd.pem"] {
        assert_eq!(mode(&machine.path("data/node-pki").join(file)), 0o600);
    }
    // Three requests, all approved and signed without anybody's help.
    let requests = get(
        &client,
        "/apis/certificates.k8s.io/v1/certificatesigningrequests",
    )
    .await;
    let users: Vec<&str> = requests["items"]
        .as_array()
        .unwrap()
        .iter()
        .inspect(|request| assert!(request["status"]["certificate"].is_string()))
        .map(|request| request["spec"]["username"].as_str().unwrap())
        .collect();
    let id = invitation.token.split('.').next().unwrap();
    assert_eq!(users.len(), 3, "{users:?}");
    assert!(users.contains(&format!("system:bootstrap:{id}").as_str()));
    assert!(users.contains(&"system:node:n2"));
    drop(running);

    let gone = token_command(&setup, &["delete", &invitation.token])
        .output()
        .unwrap();
    assert!(gone.status.success(), "{}", text(&gone));
    let deleted = http::Request::delete("/api/v1/nodes/n2").body(Vec::new());
    client.request_text(deleted.unwrap()).await.unwrap();
    let _running = machine.start(&[]);
    registered(&machine, &client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_one_cluster_is_not_taken_for_one_of_another() {
    let (first, second) = (Setup::new(), Setup::new());
    let cluster = first.start();
    let client = first.client().await;
    let invitation = invite(&first);
    let mut machine = Machine::new(&first, "n5");
    let arguments = ["--token", &invitation.token, "--ca-hash", &invitation.hash];
    let running = machine.start(&arguments);
    registered(&machine, &client).await;
    drop((running, cluster));

    let _other = second.start();
    node_exists(&second.client().await).await;
    let invitation = invite(&second);
    machine.port = second.port;
    let arguments = ["--token", &invitation.token, "--ca-hash", &invitation.hash];
    machine.fails(&arguments, "give another --data-dir or remove");
    machine.fails(&[], "is not of the cluster that this node has joined");
}

/// A node's client certificate of the cluster's CA, four fifths of whose life are over.
fn aged_certificate(setup: &Setup, node: &str) -> String {
    use rcgen::{DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
    let ca = |file: &str| std::fs::read_to_string(setup.path("data/pki").join(file)).unwrap();
    let ca_key = KeyPair::from_pem(&ca("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca("ca.crt"), ca_key).unwrap();
    let mut params = rcgen::CertificateParams::default();
    let subject = &mut params.distinguished_name;
    *subject = rcgen::DistinguishedName::new();
    subject.push(DnType::OrganizationName, "system:nodes");
    subject.push(DnType::CommonName, format!("system:node:{node}"));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = rcgen::date_time_ymd(1970, 1, 1) + now.unwrap();
    let day = std::time::Duration::from_secs(24 * 3600);
    (params.not_before, params.not_after) = (now - 80 * day, now + 20 * day);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    format!("{}{}", key.serialize_pem(), certificate.pem())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_client_certificate_is_renewed_with_itself() {
    let setup = Setup::new();
    let _cluster = setup.start();
    let client = setup.client().await;
    node_exists(&client).await;
    let invitation = invite(&setup);
    let machine = Machine::new(&setup, "n4");
    let arguments = ["--token", &invitation.token, "--ca-hash", &invitation.hash];
    let running = machine.start(&arguments);
    registered(&machine, &client).await;
    drop(running);

    let read = |file: &str| std::fs::read_to_string(machine.path("data/node-pki").join(file));
    let serving = read("serving.pem").unwrap();
    let aged = aged_certificate(&setup, "n4");
    std::fs::write(machine.path("data/node-pki/client.pem"), &aged).unwrap();
    let deleted = http::Request::delete("/api/v1/nodes/n4").body(Vec::new());
    client.request_text(deleted.unwrap()).await.unwrap();
    // Without a token: the old certificate is what it asks with.
    let _running = machine.start(&[]);
    registered(&machine, &client).await;
    let renewed = read("client.pem").unwrap();
    assert_ne!(renewed, aged);
    assert!(
        !renewed.contains(aged.split("-----BEGIN CERTIFICATE").next().unwrap()),
        "a new key"
    );
    assert_eq!(read("serving.pem").unwrap(), serving, "that one was young");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_invitation_is_refused_with_its_reason() {
    let setup = Setup::new();
    let _cluster = setup.start();
    let client = setup.client().await;
    node_exists(&client).await;
    let good = invite(&setup);
    let machine = Machine::new(&setup, "n3");
    let other_hash = format!("sha256:{}", "00".repeat(32));
    machine.fails(&[], "--token and --ca-hash are needed");
    machine.fails(
        &["--token", &good.token, "--ca-hash", "x"],
        "64 hexadecimal",
    );
    machine.fails(
        &["--token", &good.token, "--ca-hash", &other_hash],
        "this is another cluster",
    );
    let wrong = "abcdef.0123456789abcdef";
    machine.fails(
        &["--token", wrong, "--ca-hash", &good.hash],
        "the token is not valid",
    );
    let nodes = get(&client, "/api/v1/nodes").await;
    assert_eq!(nodes["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_nothing_but_the_request_for_a_certificate() {
    let setup = Setup::new();
    let _cluster = setup.start();
    setup.client().await;
    let invitation = invite(&setup);
    let listed = token_command(&setup, &["list"]).output().unwrap();
    let listed = text(&listed);
    let (id, secret) = invitation.token.split_once('.').unwrap();
    assert!(listed.contains(id) && listed.contains("a test"), "{listed}");
    assert!(!listed.contains(secret), "{listed}");
    let ask = async |path: &str, token: &str| {
        let options = kube::config::KubeConfigOptions::default();
        let mut kubeconfig =
            kube::config::Kubeconfig::read_from(setup.path("home/kubeconfig")).unwrap();
        kubeconfig.auth_infos[0].auth_info = serde_json::from_value(serde_json::json!({
            "token": token
        }))
        .unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .unwrap();
        let client = kube::Client::try_from(config).unwrap();
        match client.request_text(http_get(path)).await {
            Ok(_) => 200,
            Err(kube::Error::Api(status)) => status.code,
            Err(error) => panic!("{error}"),
        }
    };
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    assert_eq!(ask(requests, &invitation.token).await, 200);
    for path in ["/api/v1/nodes", "/api/v1/namespaces/kube-system/secrets"] {
        assert_eq!(ask(path, &invitation.token).await, 403, "{path}");
    }
    let other = format!("{id}.0123456789abcdef");
    assert_eq!(ask(requests, &other).await, 401);
}
