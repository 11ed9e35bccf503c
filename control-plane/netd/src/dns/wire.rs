//! The few things about a message's bytes (RFC 1035 §4.1) that are needed without decoding it:
//! where its times to live are, and whether it answers a question.

/// Length of a message's header, in bytes.
pub const HEADER: usize = 12;
const POINTER: u8 = 0b1100_0000;
const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TRUNCATED: u8 = 0b0000_0010;

fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

fn long_number(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Where a name ends.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length & POINTER {
            POINTER => return Some(at + 2),
            0 if length == 0 => return Some(at + 1),
            0 => at += 1 + usize::from(length),
            _ => return None,
        }
    }
}

/// Where the only question ends.
pub fn after_question(message: &[u8]) -> Option<usize> {
    if number(message, 4)? != 1 {
        return None;
    }
    let end = after_name(message, HEADER)? + 4;
    (end <= message.len()).then_some(end)
}

/// Whether the message was cut.
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & TRUNCATED != 0)
}

/// The response code.
pub fn response_code(message: &[u8]) -> u8 {
    message.get(3).map_or(2, |flags| flags & 0x0f)
}

/// Whether `response` answers the question of `query`: same id, a response, same question. Names
/// are compared as DNS does, without regard to case.
pub fn answers(query: &[u8], response: &[u8]) -> bool {
    let is_response = response.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let question = |message: &[u8]| -> Option<Vec<u8>> {
        let end = after_question(message)?;
        Some(message[HEADER..end].to_ascii_lowercase())
    };
    let same = question(query).is_some_and(|asked| question(response) == Some(asked));
    is_response && same && query.get(..2) == response.get(..2)
}

/// Times to live in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// Where they are.
    pub at: Vec<usize>,
    /// The shortest, in seconds; of a negative answer that of its SOA record, which also bounds it
    /// by its minimum field (RFC 2308 §5).
    pub shortest_s: u32,
}

/// The times to live of a well-formed response that has any.
pub fn lifetimes(message: &[u8]) -> Option<Lifetimes> {
    let mut position = after_question(message)?;
    let records = (6..HEADER).step_by(2).try_fold(0_usize, |sum, at| {
        Some(sum + usize::from(number(message, at)?))
    })?;
    let mut found = Lifetimes {
        at: Vec::new(),
        shortest_s: u32::MAX,
    };
    for _ in 0..records {
        let fields = after_name(message, position)?;
        let kind = number(message, fields)?;
        let ttl = long_number(message, fields + 4)?;
        let data = fields + 10;
        position = data + usize::from(number(message, fields + 8)?);
        if position > message.len() {
            return None;
        }
        if kind == TYPE_OPT {
            continue;
        }
        found.at.push(fields + 4);
        found.shortest_s = found.shortest_s.min(ttl);
        if kind == TYPE_SOA {
            let minimum = long_number(message, position.checked_sub(4)?)?;
            found.shortest_s = found.shortest_s.min(minimum);
        }
    }
    (!found.at.is_empty()).then_some(found)
}

/// Puts a client's id and question (whose letters it may have mixed) over a kept response's, and
/// takes the time that passed off its times to live.
pub fn freshen(response: &mut [u8], query: &[u8], lifetimes: &Lifetimes, passed_s: u32) {
    if let (Some(end), Some(own)) = (after_question(query), after_question(response))
        && end == own
    {
        response[..2].copy_from_slice(&query[..2]);
        response[HEADER..end].copy_from_slice(&query[HEADER..end]);
    }
    for at in &lifetimes.at {
        if let Some(ttl) = long_number(response, *at) {
            let left = ttl.saturating_sub(passed_s);
            response[*at..at + 4].copy_from_slice(&left.to_be_bytes());
        }
    }
}

/// The response cut to its header and question, with the mark that there is more (RFC 2181 §9).
pub fn truncate(response: &[u8]) -> Vec<u8> {
    let end = after_question(response).unwrap_or(HEADER.min(response.len()));
    let mut cut = response[..end].to_vec();
    if cut.len() >= HEADER {
        cut[2] |= TRUNCATED;
        cut[6..HEADER].fill(0);
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a.bc` A, with one answer (TTL 300, a pointer for a name) and an OPT record.
    fn response() -> Vec<u8> {
        let mut bytes = vec![0, 7, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 1];
        bytes.extend(b"\x01a\x02bc\x00\x00\x01\x00\x01");
        bytes.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x01\x2c\x00\x04\x01\x02\x03\x04");
        bytes.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00");
        bytes
    }

    #[test]
    fn lifetimes_are_found_and_aged() {
        let mut bytes = response();
        let found = lifetimes(&bytes).unwrap();
        assert_eq!((found.at.len(), found.shortest_s), (1, 300));
        let mut query = bytes[..22].to_vec();
        query[..2].copy_from_slice(&[9, 9]);
        query[13] = b'A';
        freshen(&mut bytes, &query, &found, 100);
        assert_eq!(lifetimes(&bytes).unwrap().shortest_s, 200);
        assert_eq!((bytes[0], bytes[13]), (9, b'A'));
    }

    #[test]
    fn only_the_answer_to_the_question_is_believed() {
        let response = response();
        let mut query = response[..22].to_vec();
        query[2] = 1;
        assert!(answers(&query, &response));
        query[13] = b'A';
        assert!(answers(&query, &response), "case does not matter");
        query[13] = b'x';
        assert!(!answers(&query, &response));
        query[13] = b'a';
        query[0] = 1;
        assert!(!answers(&query, &response));
        assert!(!answers(&response[..22], &query[..22]));
    }

    #[test]
    fn every_cut_of_a_message_is_survived() {
        let bytes = response();
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            let _ = (lifetimes(cut), answers(cut, &bytes), truncate(cut));
        }
        let mut looping = bytes.clone();
        looping[12] = 0xc0;
        looping[13] = 0x0c;
        let _ = lifetimes(&looping);
        assert!(is_truncated(&truncate(&bytes)));
        assert_eq!(truncate(&bytes).len(), 22);
    }
}
