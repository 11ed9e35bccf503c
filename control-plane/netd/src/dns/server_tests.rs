use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use serde_json::json;
use simple_dns::rdata::{A, RData};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let (kind, class) = (QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN));
    let name = Name::new(name).unwrap();
    packet
        .questions
        .push(Question::new(name, kind, class, false));
    packet.build_bytes_vec().unwrap()
}

fn addresses(response: &[u8]) -> (RCODE, Vec<Ipv4Addr>) {
    let packet = Packet::parse(response).unwrap();
    assert_eq!(packet.id(), 77);
    let found = packet
        .answers
        .iter()
        .filter_map(|record| match &record.rdata {
            RData::A(a) => Some(Ipv4Addr::from(a.address)),
            _ => None,
        });
    (packet.rcode(), found.collect())
}

/// An upstream server: `many.` names have 60 addresses, `no.` ones none, all others 192.0.2.80.
/// Over UDP long answers are cut.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let (udp, tcp) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let respond = |message: &[u8]| {
        let query = Packet::parse(message).unwrap();
        let name = query.questions[0].qname.clone();
        let mut reply = Packet::new_reply(query.id());
        let text = name.to_string();
        reply.questions.push(query.questions[0].clone());
        let count = if text.starts_with("many.") { 60 } else { 1 };
        if text.starts_with("no.") {
            *reply.rcode_mut() = RCODE::NameError;
        } else {
            for last in 0..count {
                let a = A {
                    address: u32::from(Ipv4Addr::new(192, 0, 2, 80 + last)),
                };
                let record = ResourceRecord::new(name.clone(), CLASS::IN, 60, RData::A(a));
                reply.answers.push(record);
            }
        }
        reply.build_bytes_vec_compressed().unwrap()
    };
    let count = asked.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut response = respond(&buffer[..length]);
            if response.len() > 512 {
                response = wire::truncate(&response);
            }
            udp.send_to(&response, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut message = vec![0; length.into()];
            stream.read_exact(&mut message).await.unwrap();
            let response = respond(&message);
            stream.write_u16(response.len() as u16).await.unwrap();
            stream.write_all(&response).await.unwrap();
        }
    });
    (address, asked)
}

fn resolver(upstreams: Vec<SocketAddr>) -> Arc<Resolver> {
    let mut zone = Zone::new("cluster.local", vec!["10.43.0.0/16".parse().unwrap()]);
    for (name, spec) in [
        ("web", json!({"clusterIP": "10.43.0.5"})),
        (
            "out",
            json!({"type": "ExternalName", "externalName": "www.example.org"}),
        ),
        (
            "again",
            json!({"type": "ExternalName", "externalName": "web.a.svc.cluster.local"}),
        ),
        (
            "circle",
            json!({"type": "ExternalName", "externalName": "circle.a.svc.cluster.local"}),
        ),
    ] {
        let service = json!({"metadata": {"namespace": "a", "name": name}, "spec": spec});
        zone.apply_service(Arc::new(serde_json::from_value(service).unwrap()));
    }
    zone.set_complete();
    let forwarder = Forwarder::new([], upstreams, 1.0);
    let zone = Arc::new(RwLock::new(zone));
    Arc::new(Resolver::new(zone, forwarder, DnsMetrics::default()))
}

async fn ask(resolver: &Resolver, name: &str) -> (RCODE, Vec<Ipv4Addr>) {
    let response = resolver.resolve(&query(name, TYPE::A), true).await.unwrap();
    addresses(&response)
}

#[tokio::test]
async fn cluster_names_are_answered_with_authority() {
    let resolver = resolver(Vec::new());
    let response = resolver
        .resolve(&query("Web.A.svc.Cluster.local", TYPE::A), true)
        .await;
    let response = response.unwrap();
    assert_eq!(
        addresses(&response),
        (RCODE::NoError, vec![[10, 43, 0, 5].into()])
    );
    let packet = Packet::parse(&response).unwrap();
    assert!(packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
    assert_eq!(
        packet.questions[0].qname.to_string(),
        "Web.A.svc.Cluster.local"
    );
    assert_eq!(
        ask(&resolver, "no.a.svc.cluster.local").await.0,
        RCODE::NameError
    );
    let missing = resolver
        .resolve(&query("web.a.svc.cluster.local", TYPE::AAAA), true)
        .await;
    let missing = missing.unwrap();
    let packet = Packet::parse(&missing).unwrap();
    assert_eq!((packet.rcode(), packet.answers.len()), (RCODE::NoError, 0));
    assert_eq!(packet.name_servers.len(), 1, "for negative caching");
}

#[tokio::test]
async fn nothing_is_denied_before_everything_was_read() {
    let zone = Zone::new("cluster.local", Vec::new());
    let forwarder = Forwarder::new([], Vec::new(), 1.0);
    let resolver = Resolver::new(
        Arc::new(RwLock::new(zone)),
        forwarder,
        DnsMetrics::default(),
    );
    let asked = ask(&resolver, "web.a.svc.cluster.local").await;
    assert_eq!(asked.0, RCODE::ServerFailure);
    resolver.zone.write().set_complete();
    let asked = ask(&resolver, "web.a.svc.cluster.local").await;
    assert_eq!(asked.0, RCODE::NameError);
}

#[tokio::test]
async fn other_names_are_asked_once_and_kept() {
    let (upstream, asked) = upstream().await;
    let resolver = resolver(vec![upstream]);
    for _ in 0..3 {
        let found = ask(&resolver, "example.org").await;
        assert_eq!(found, (RCODE::NoError, vec![[192, 0, 2, 80].into()]));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    assert_eq!(ask(&resolver, "no.example.org").await.0, RCODE::NameError);
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_dead() {
    let (upstream, _) = upstream().await;
    let dead = UdpSocket::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let resolver = resolver(vec![dead, upstream]);
    assert_eq!(ask(&resolver, "example.org").await.0, RCODE::NoError);
    let alone = self::resolver(vec![dead]);
    assert_eq!(ask(&alone, "example.org").await.0, RCODE::ServerFailure);
    assert_eq!(
        ask(&self::resolver(vec![]), "example.org").await.0,
        RCODE::ServerFailure
    );
}

#[tokio::test]
async fn long_answers_come_over_tcp() {
    let (upstream, _) = upstream().await;
    let resolver = resolver(vec![upstream]);
    let (udp, tcp) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = udp.local_addr().unwrap();
    tokio::spawn(serve_udp(udp, resolver.clone()));
    tokio::spawn(serve_tcp(tcp, resolver));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = query("many.example.org", TYPE::A);
    client.send_to(&question, address).await.unwrap();
    let mut buffer = [0; 2048];
    let length = client.recv(&mut buffer).await.unwrap();
    assert!(wire::is_truncated(&buffer[..length]) && length <= 512);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_u16(question.len() as u16).await.unwrap();
    stream.write_all(&question).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut response = vec![0; length.into()];
    stream.read_exact(&mut response).await.unwrap();
    assert_eq!(addresses(&response).1.len(), 60);
}

#[tokio::test]
async fn aliases_are_followed_to_their_addresses() {
    let (upstream, _) = upstream().await;
    let resolver = resolver(vec![upstream]);
    let found = ask(&resolver, "out.a.svc.cluster.local").await;
    assert_eq!(found, (RCODE::NoError, vec![[192, 0, 2, 80].into()]));
    let found = ask(&resolver, "again.a.svc.cluster.local").await;
    assert_eq!(found.1, [Ipv4Addr::new(10, 43, 0, 5)]);
    let found = ask(&resolver, "circle.a.svc.cluster.local").await;
    assert_eq!(found.0, RCODE::ServerFailure);
}

#[tokio::test]
async fn nonsense_gets_a_code_or_silence() {
    let resolver = resolver(Vec::new());
    assert_eq!(resolver.resolve(b"x", true).await, None);
    let mut response = query("web.a.svc.cluster.local", TYPE::A);
    response[2] |= 0x80;
    assert_eq!(
        resolver.resolve(&response, true).await,
        None,
        "a response is no query"
    );
    let whole = query("web.a.svc.cluster.local", TYPE::A);
    for end in 12..whole.len() {
        let answer = resolver.resolve(&whole[..end], true).await.unwrap();
        assert_eq!(wire::response_code(&answer), 1, "{end}");
    }
    let mut update = whole;
    update[2] = 5 << 3;
    let answer = resolver.resolve(&update, true).await.unwrap();
    assert_eq!(wire::response_code(&answer), 4);
}
