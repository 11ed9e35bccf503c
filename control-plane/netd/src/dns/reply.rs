//! Answers of the zone as messages.

use std::net::IpAddr;

use simple_dns::rdata::{A, AAAA, CNAME, OPT, PTR, RData, SOA, SRV, TXT};
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord};

use super::zone::{Answer, Data, Want};

/// How long clients may keep the zone's answers, in seconds: endpoints change.
pub const TTL_S: u32 = 5;
/// The largest datagram that is promised and used, in bytes: no fragments on any usual path.
pub const EDNS_LIMIT: u16 = 1232;
/// The largest datagram for a client without EDNS (RFC 1035 §4.2.1), in bytes.
pub const PLAIN_LIMIT: u16 = 512;

/// A query that can be answered.
pub struct Query<'a> {
    packet: Packet<'a>,
}

/// Why a message gets no answer, or only a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Not worth an answer: not a query at all.
    Silence,
    /// A response code.
    Code(RCODE),
}

impl<'a> Query<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn parse(message: &'a [u8]) -> Result<Self, Refusal> {
        let is_response = message.get(2).is_none_or(|flags| flags & 0x80 != 0);
        if is_response || message.len() < super::wire::HEADER {
            return Err(Refusal::Silence);
        }
        let packet = Packet::parse(message).map_err(|_| Refusal::Code(RCODE::FormatError))?;
        if packet.opcode() != simple_dns::OPCODE::StandardQuery {
            return Err(Refusal::Code(RCODE::NotImplemented));
        }
        if packet.questions.len() != 1 {
            return Err(Refusal::Code(RCODE::FormatError));
        }
        Ok(Query { packet })
    }

    fn question(&self) -> &Question<'a> {
        // One, by construction.
        &self.packet.questions[0]
    }

    /// The name's labels in lower case, the first one first.
    pub fn labels(&self) -> Vec<String> {
        let labels = self.question().qname.get_labels().iter();
        labels
            .map(|label| String::from_utf8_lossy(label.as_ref()).to_lowercase())
            .collect()
    }

    /// What is asked for.
    pub fn want(&self) -> Want {
        match u16::from(self.question().qtype) {
            1 => Want::A,
            28 => Want::Aaaa,
            33 => Want::Srv,
            12 => Want::Ptr,
            16 => Want::Txt,
            _ => Want::Other,
        }
    }

    /// Whether the client speaks EDNS.
    pub fn edns(&self) -> bool {
        self.packet.opt().is_some()
    }

    /// The largest datagram that the client takes.
    pub fn datagram_limit(&self) -> usize {
        let told = self
            .packet
            .opt()
            .map_or(PLAIN_LIMIT, |opt| opt.udp_packet_size);
        told.clamp(PLAIN_LIMIT, EDNS_LIMIT).into()
    }

    /// The query as it is sent on: the question alone, with recursion desired.
    pub fn onward(&self) -> Option<Vec<u8>> {
        onward(self.packet.id(), self.question().clone(), self.edns())
    }

    /// The query for another name, of the same type: what an alias stands for.
    pub fn onward_for(&self, name: &str) -> Option<Vec<u8>> {
        let question = Question {
            qname: Name::new(name).ok()?,
            ..self.question().clone()
        };
        onward(self.packet.id(), question, self.edns())
    }

    fn reply(&self, code: RCODE) -> Packet<'_> {
        let mut reply = Packet::new_reply(self.packet.id());
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if self.packet.has_flags(PacketFlag::RECURSION_DESIRED) {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        *reply.rcode_mut() = code;
        reply.questions.push(self.question().clone());
        if self.edns() {
            *reply.opt_mut() = Some(OPT {
                opt_codes: Vec::new(),
                udp_packet_size: EDNS_LIMIT,
                version: 0,
            });
        }
        reply
    }

    /// A reply with a code alone.
    pub fn code(&self, code: RCODE) -> Option<Vec<u8>> {
        self.reply(code).build_bytes_vec_compressed().ok()
    }

    /// The zone's answer. `alias` is the answer to what an alias stands for.
    pub fn answer(&self, answer: &Answer, domain: &str, alias: Option<&[u8]>) -> Option<Vec<u8>> {
        let (code, records) = match answer {
            Answer::Records(records) => (RCODE::NoError, records.as_slice()),
            Answer::NoName => (RCODE::NameError, &[][..]),
            Answer::NotOurs => return None,
        };
        let mut reply = self.reply(code);
        reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        let owner = || self.question().qname.clone();
        for record in records {
            reply.answers.push(resource(owner(), record)?);
            if let Data::Srv {
                target, addresses, ..
            } = record
            {
                for address in addresses {
                    let target = Name::new(target).ok()?;
                    let data = address_data(*address);
                    let additional = ResourceRecord::new(target, CLASS::IN, TTL_S, data);
                    if !reply.additional_records.contains(&additional) {
                        reply.additional_records.push(additional);
                    }
                }
            }
        }
        let alias = alias.and_then(|message| Packet::parse(message).ok());
        if let Some(alias) = &alias {
            *reply.rcode_mut() = alias.rcode();
            reply.answers.extend(alias.answers.iter().cloned());
        } else if records.is_empty() {
            reply.name_servers.push(authority(domain)?);
        }
        reply.build_bytes_vec_compressed().ok()
    }
}

fn onward(id: u16, question: Question<'_>, edns: bool) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(question);
    if edns {
        *packet.opt_mut() = Some(OPT {
            opt_codes: Vec::new(),
            udp_packet_size: EDNS_LIMIT,
            version: 0,
        });
    }
    packet.build_bytes_vec().ok()
}

fn resource<'a>(owner: Name<'a>, data: &'a Data) -> Option<ResourceRecord<'a>> {
    let data = match data {
        Data::Address(address) => address_data(*address),
        Data::Srv { port, target, .. } => RData::SRV(SRV {
            priority: 0,
            weight: 100,
            port: *port,
            target: Name::new(target).ok()?,
        }),
        Data::Ptr(name) => RData::PTR(PTR(Name::new(name).ok()?)),
        Data::Cname(name) => RData::CNAME(CNAME(Name::new(name).ok()?)),
        Data::Text(text) => RData::TXT(TXT::new().with_string(text).ok()?),
    };
    Some(ResourceRecord::new(owner, CLASS::IN, TTL_S, data))
}

fn address_data(address: IpAddr) -> RData<'static> {
    match address {
        IpAddr::V4(ip) => RData::A(A { address: ip.into() }),
        IpAddr::V6(ip) => RData::AAAA(AAAA { address: ip.into() }),
    }
}

/// The SOA record by which clients keep a negative answer (RFC 2308).
fn authority(domain: &str) -> Option<ResourceRecord<'static>> {
    let name = |text: String| Some(Name::new(&text).ok()?.into_owned());
    let data = RData::SOA(SOA {
        mname: name(format!("ns.dns.{domain}"))?,
        rname: name(format!("hostmaster.{domain}"))?,
        serial: 1,
        refresh: 7200,
        retry: 1800,
        expire: 86400,
        minimum: TTL_S,
    });
    let owner = name(domain.to_string())?;
    Some(ResourceRecord::new(owner, CLASS::IN, TTL_S, data))
}

/// A reply to a message that could not be read: its id and a code.
pub fn refuse(message: &[u8], code: RCODE) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
    let mut reply = Packet::new_reply(id);
    *reply.rcode_mut() = code;
    reply.build_bytes_vec().ok()
}
