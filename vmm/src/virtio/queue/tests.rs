use super::*;
use crate::virtio::test_support::{BUFFERS, Driver, INDIRECT, NEXT, QUEUE_SIZE, WRITE, memory};

fn pair() -> (Driver, VirtQueue) {
    let driver = Driver::new(&memory(), 0);
    let queue = driver.queue(0);
    (driver, queue)
}

#[test]
fn a_chain_is_split_into_readable_and_writable_bytes() {
    let (mut driver, mut queue) = pair();
    assert!(queue.pop().unwrap().is_none());
    driver.put(BUFFERS, b"headdata");
    let head = driver.chain(&[
        (BUFFERS, 4, false),
        (BUFFERS + 4, 4, false),
        (BUFFERS + 100, 10, true),
    ]);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (8, 10));
    let mut bytes = [0; 5];
    assert!(
        chain
            .readable
            .copy_out(queue.memory(), 3, &mut bytes)
            .unwrap()
    );
    assert_eq!(&bytes, b"ddata");
    assert!(
        !chain
            .readable
            .copy_out(queue.memory(), 4, &mut bytes)
            .unwrap()
    );
    assert_eq!(
        chain.writable.copy_in(queue.memory(), 8, b"xyz").unwrap(),
        2
    );
    assert_eq!(driver.get(BUFFERS + 108, 2), b"xy");
    queue.complete(chain.head, 2).unwrap();
    assert_eq!(driver.used(), vec![(u32::from(head), 2)]);
}

#[test]
fn a_loop_is_found() {
    let (mut driver, mut queue) = pair();
    let table = driver.rings()[0];
    driver.descriptor(table, 0, BUFFERS, 4, NEXT, 1);
    driver.descriptor(table, 1, BUFFERS, 4, NEXT, 0);
    driver.offer(0);
    assert!(matches!(queue.pop(), Err(QueueError::Chain(0))));
}

#[test]
fn heads_and_successors_outside_the_table_are_found() {
    let (mut driver, mut queue) = pair();
    driver.offer(QUEUE_SIZE);
    assert!(matches!(queue.pop(), Err(QueueError::Chain(QUEUE_SIZE))));
    driver.descriptor(driver.rings()[0], 2, BUFFERS, 4, NEXT, 0xffff);
    driver.offer(2);
    assert!(matches!(queue.pop(), Err(QueueError::Chain(2))));
}

#[test]
fn buffers_outside_guest_memory_are_found() {
    for (address, length) in [
        (0x40_0000u64, 1u32),
        (0x3f_ffff, 2),
        (u64::MAX, 1),
        (u64::MAX - 3, 8),
        (0, u32::MAX),
        (BUFFERS, u32::MAX),
    ] {
        let (mut driver, mut queue) = pair();
        driver.chain(&[(address, length, true)]);
        let outcome = queue.pop();
        assert!(
            matches!(outcome, Err(QueueError::Memory { .. })),
            "{address:#x} {length}: {outcome:?}"
        );
    }
}

#[test]
fn lengths_that_overflow_the_sum_are_found() {
    let (mut driver, mut queue) = pair();
    driver.chain(&[(BUFFERS, 0x10_0000, false), (BUFFERS, u32::MAX, false)]);
    assert!(queue.pop().is_err());
}

#[test]
fn a_readable_buffer_behind_a_writable_one_is_found() {
    let (mut driver, mut queue) = pair();
    driver.chain(&[(BUFFERS, 4, true), (BUFFERS, 4, false)]);
    assert!(matches!(queue.pop(), Err(QueueError::Order(0))));
}

#[test]
fn an_available_index_beyond_the_ring_is_found() {
    let (driver, mut queue) = pair();
    driver.set_available(QUEUE_SIZE + 1);
    assert!(matches!(queue.pop(), Err(QueueError::Ring(_))));
}

#[test]
fn indirect_tables_work_and_broken_ones_are_found() {
    let (mut driver, mut queue) = pair();
    let table = driver.rings()[0];
    driver.descriptor(BUFFERS, 0, BUFFERS + 0x1000, 16, NEXT, 1);
    driver.descriptor(BUFFERS, 1, BUFFERS + 0x2000, 8, WRITE, 0);
    driver.descriptor(table, 0, BUFFERS, 32, INDIRECT, 0);
    driver.offer(0);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.readable.len(), chain.writable.len()), (16, 8));
    // A table inside a table, a length that is no multiple of 16, a table outside memory.
    driver.descriptor(BUFFERS, 0, BUFFERS, 32, INDIRECT, 0);
    driver.offer(0);
    assert!(matches!(queue.pop(), Err(QueueError::Chain(0))));
    for (address, length) in [
        (BUFFERS, 33),
        (u64::MAX - 15, 16),
        (BUFFERS, 0),
        (BUFFERS, 0xffff_fff0),
    ] {
        driver.descriptor(table, 0, address, length, INDIRECT, 0);
        driver.offer(0);
        assert!(queue.pop().is_err(), "{address:#x} {length}");
    }
}

#[test]
fn an_endless_indirect_chain_is_bounded() {
    let (mut driver, mut queue) = pair();
    for index in 0..2048 {
        driver.descriptor(BUFFERS, index, BUFFERS, 1, NEXT, index + 1);
    }
    driver.descriptor(driver.rings()[0], 0, BUFFERS, 2048 * 16, INDIRECT, 0);
    driver.offer(0);
    assert!(matches!(queue.pop(), Err(QueueError::TooLong(0))));
}

#[test]
fn rings_outside_guest_memory_are_refused() {
    for ring in 0..3 {
        let driver = Driver::new(&memory(), 0);
        let mut raw = driver.raw_queue();
        let bad = GuestAddress(0x3f_fff0);
        match ring {
            0 => raw.try_set_desc_table_address(bad).unwrap(),
            1 => raw.try_set_avail_ring_address(bad).unwrap(),
            _ => raw
                .try_set_used_ring_address(GuestAddress(u64::MAX - 0xf))
                .unwrap(),
        }
        let interrupt = crate::virtio::test_support::interrupt(1);
        let outcome = VirtQueue::new(raw, 0, driver.memory.clone(), interrupt, None);
        assert!(matches!(outcome, Err(QueueError::Addresses)));
    }
}

#[test]
fn work_beyond_the_budget_is_left_for_later() {
    let driver_memory = memory();
    let mut driver = Driver::new(&driver_memory, 0);
    let kick = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
    let interrupt = crate::virtio::test_support::interrupt(1);
    let copy = kick.try_clone().unwrap();
    let mut queue =
        VirtQueue::new(driver.raw_queue(), 0, driver_memory, interrupt, Some(copy)).unwrap();
    for _ in 0..5 {
        driver.chain(&[(BUFFERS, 1, false)]);
    }
    queue.drain(3, |_, _| Ok(0)).unwrap();
    assert_eq!(driver.used().len(), 3);
    assert_eq!(kick.read().unwrap(), 1);
    queue.drain(3, |_, _| Ok(0)).unwrap();
    assert_eq!(driver.used().len(), 2);
    assert!(kick.read().is_err());
}
