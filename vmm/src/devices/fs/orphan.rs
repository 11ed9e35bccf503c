//! What becomes of requests that no back end will answer: each fails with ENOTCONN, as those
//! of a FUSE file system do whose server died.

use crate::memory::GuestMemory;
use crate::virtio::{Chain, QueueError, VirtQueue};

/// Requests per turn of the event loop.
const BUDGET: usize = 64;
/// fuse_in_header: length, opcode, unique, …; fuse_out_header: length, error, unique.
const OPCODE_AT: usize = 4;
const IN_HEADER_BYTES: usize = 16;
const OUT_HEADER_BYTES: usize = 16;
/// FUSE_FORGET and FUSE_BATCH_FORGET have no answer.
const WITHOUT_ANSWER: [u32; 2] = [2, 42];

/// Fails what waits in the queue; returns how many requests that were.
pub fn fail_requests(queue: &mut VirtQueue) -> Result<u64, QueueError> {
    let mut failed = 0;
    queue.drain(BUDGET, |memory, chain| {
        failed += 1;
        refuse(memory, chain)
    })?;
    Ok(failed)
}

fn refuse(memory: &GuestMemory, chain: &Chain) -> Result<u32, QueueError> {
    let mut header = [0; IN_HEADER_BYTES];
    if !chain.readable.copy_out(memory, 0, &mut header)? {
        return Err(QueueError::TooShort("FUSE request"));
    }
    let (_, rest) = header.split_at(OPCODE_AT);
    let (opcode, unique) = rest.split_at(4);
    let opcode = opcode.try_into().map_or(0, u32::from_le_bytes);
    if WITHOUT_ANSWER.contains(&opcode) {
        return Ok(0);
    }
    let mut answer = [0; OUT_HEADER_BYTES];
    answer[..4].copy_from_slice(&(OUT_HEADER_BYTES as u32).to_le_bytes());
    answer[4..8].copy_from_slice(&(-libc::ENOTCONN).to_le_bytes());
    answer[8..].copy_from_slice(unique);
    let written = chain.writable.copy_in(memory, 0, &answer)?;
    Ok(written as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::test_support::{BUFFERS, Driver, memory};

    fn request(opcode: u32, unique: u64) -> Vec<u8> {
        let mut bytes = 40u32.to_le_bytes().to_vec();
        bytes.extend(opcode.to_le_bytes());
        bytes.extend(unique.to_le_bytes());
        bytes.resize(40, 0);
        bytes
    }

    #[test]
    fn every_waiting_request_is_answered_with_its_own_number() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0);
        let mut queue = driver.queue(0);
        for (index, unique) in [7u64, 9].into_iter().enumerate() {
            let at = BUFFERS + 0x1000 * index as u64;
            driver.put(at, &request(3, unique));
            driver.chain(&[(at, 40, false), (at + 0x800, 120, true)]);
        }
        assert_eq!(fail_requests(&mut queue).unwrap(), 2);
        let lengths: Vec<u32> = driver.used().into_iter().map(|used| used.1).collect();
        assert_eq!(lengths, [16, 16]);
        for (index, unique) in [7u64, 9].into_iter().enumerate() {
            let answer = driver.get(BUFFERS + 0x1000 * index as u64 + 0x800, 16);
            assert_eq!(answer[..4], 16u32.to_le_bytes());
            assert_eq!(answer[4..8], (-libc::ENOTCONN).to_le_bytes());
            assert_eq!(answer[8..], unique.to_le_bytes());
        }
    }

    #[test]
    fn forgetting_has_no_answer() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0);
        let mut queue = driver.queue(0);
        driver.put(BUFFERS, &request(2, 1));
        driver.chain(&[(BUFFERS, 40, false)]);
        assert_eq!(fail_requests(&mut queue).unwrap(), 1);
        assert_eq!(driver.used()[0].1, 0);
    }

    #[test]
    fn a_request_without_a_header_breaks_the_queue() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0);
        let mut queue = driver.queue(0);
        driver.chain(&[(BUFFERS, 8, false)]);
        assert!(fail_requests(&mut queue).is_err());
    }

    #[test]
    fn what_was_answered_before_is_not_answered_again() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0);
        let mut first = driver.queue(0);
        driver.put(BUFFERS, &request(3, 1));
        driver.chain(&[(BUFFERS, 40, false), (BUFFERS + 0x800, 120, true)]);
        fail_requests(&mut first).unwrap();
        driver.used();
        let mut second = driver.queue(0);
        driver.chain(&[(BUFFERS, 40, false), (BUFFERS + 0x800, 120, true)]);
        second.resume_from_used().unwrap();
        assert_eq!(fail_requests(&mut second).unwrap(), 1);
        assert_eq!(driver.used().len(), 1);
    }
}
