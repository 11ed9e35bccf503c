use super::*;

fn established(buffer: u32) -> (Connection, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut connection = Connection::from_guest(ours, buffer, 0);
    assert_eq!(connection.next_operation(), Some(Operation::Response));
    connection.told(Operation::Response);
    (connection, theirs)
}

fn drain(stream: &mut UnixStream) -> usize {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    while let Ok(count) = stream.read(&mut buffer) {
        if count == 0 {
            break;
        }
        total += count;
    }
    total
}

#[test]
fn the_guest_gets_no_more_than_its_credit() {
    let (mut connection, mut host) = established(10);
    host.write_all(&[7; 25]).unwrap();
    connection.socket_ready(true, false);
    let mut buffer = [0; 100];
    assert_eq!(connection.next_operation(), Some(Operation::Data));
    assert_eq!(connection.receive(&mut buffer), 10);
    assert_eq!(connection.credit(), 0);
    // Without credit the guest is asked once.
    assert_eq!(connection.next_operation(), Some(Operation::CreditRequest));
    connection.told(Operation::CreditRequest);
    assert_eq!(connection.next_operation(), None);
    connection.learn_credit(10, 4);
    assert_eq!(connection.credit(), 4);
    assert_eq!(connection.receive(&mut buffer), 4);
    connection.learn_credit(100, 14);
    assert_eq!(connection.receive(&mut buffer), 11);
    assert_eq!(connection.receive(&mut buffer), 0);
    assert_eq!(connection.next_operation(), None);
}

#[test]
fn credit_survives_the_wrap_of_its_counters() {
    let (mut connection, _host) = established(1000);
    connection.sent = u32::MAX - 10;
    connection.learn_credit(1000, u32::MAX - 110);
    assert_eq!(connection.credit(), 900);
    connection.sent = connection.sent.wrapping_add(300);
    assert_eq!(connection.credit(), 600);
    connection.learn_credit(1000, 289);
    assert_eq!(connection.credit(), 1000);
    // A guest that claims to have forwarded what was never sent gets nothing.
    connection.learn_credit(1000, 290);
    assert_eq!(connection.credit(), 0);
    // A buffer that shrinks below what is in flight means no credit, not an underflow.
    connection.learn_credit(0, 0);
    assert_eq!(connection.credit(), 0);
}

#[test]
fn a_slow_host_program_holds_the_guest_back_and_loses_nothing() {
    let (mut connection, mut host) = established(0);
    let chunk = vec![1; 64 * 1024];
    let mut sent = 0;
    // The kernel's socket buffer takes some; then the connection's buffer fills.
    loop {
        let (buffer, forwarded) = connection.tell_credit();
        if (sent as u32).wrapping_sub(forwarded) + chunk.len() as u32 > buffer {
            break;
        }
        connection.send(&chunk).unwrap();
        sent += chunk.len();
    }
    assert!(connection.outgoing.len() > BUFFER_BYTES as usize - 2 * chunk.len());
    let mut received = 0;
    while received < sent {
        let count = drain(&mut host);
        connection.socket_ready(false, true);
        assert!(count > 0, "{received} of {sent}");
        received += count;
    }
    assert_eq!(connection.next_operation(), Some(Operation::CreditUpdate));
    assert_eq!(connection.tell_credit(), (BUFFER_BYTES, sent as u32));
    assert_eq!(connection.next_operation(), None);
}

#[test]
fn a_guest_beyond_its_credit_is_a_violation() {
    let (mut connection, _host) = established(0);
    let chunk = vec![1; 64 * 1024];
    let mut outcome = Ok(());
    // Never told of new credit, it may send the buffer plus what the socket took.
    for _ in 0..64 {
        outcome = connection.send(&chunk);
        if outcome.is_err() {
            break;
        }
    }
    assert_eq!(outcome, Err(Violation::Credit));
    assert!(connection.outgoing.len() <= BUFFER_BYTES as usize);
}

#[test]
fn half_close_by_the_guest_ends_the_host_programs_input_only() {
    let (mut connection, mut host) = established(1000);
    connection.send(b"last words").unwrap();
    connection.shutdown(SHUTDOWN_SEND);
    assert_eq!(drain(&mut host), 10);
    assert_eq!(connection.send(b"more"), Err(Violation::State));
    host.write_all(b"answer").unwrap();
    connection.socket_ready(true, true);
    let mut buffer = [0; 100];
    assert_eq!(connection.next_operation(), Some(Operation::Data));
    assert_eq!(connection.receive(&mut buffer), 6);
    connection.shutdown(SHUTDOWN_RECEIVE);
    assert_eq!(connection.next_operation(), Some(Operation::Reset));
}

#[test]
fn half_close_by_the_host_program_is_told_and_the_guest_may_go_on() {
    let (mut connection, mut host) = established(1000);
    host.write_all(b"request").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    connection.socket_ready(true, false);
    let mut buffer = [0; 100];
    assert_eq!(connection.receive(&mut buffer), 7);
    assert_eq!(connection.receive(&mut buffer), 0);
    assert_eq!(connection.next_operation(), Some(Operation::Shutdown));
    assert_eq!(connection.shutdown_flags(), SHUTDOWN_SEND);
    connection.told(Operation::Shutdown);
    assert_eq!(connection.next_operation(), None);
    connection.send(b"response").unwrap();
    assert_eq!(drain(&mut host), 8);
    connection.shutdown(SHUTDOWN_SEND | SHUTDOWN_RECEIVE);
    assert_eq!(connection.next_operation(), Some(Operation::Reset));
}

#[test]
fn a_host_program_that_goes_away_is_told_after_its_data() {
    let (mut connection, mut host) = established(1000);
    host.write_all(b"bye").unwrap();
    drop(host);
    connection.socket_ready(true, true);
    let mut buffer = [0; 100];
    assert_eq!(connection.next_operation(), Some(Operation::Data));
    assert_eq!(connection.receive(&mut buffer), 3);
    assert_eq!(connection.receive(&mut buffer), 0);
    assert_eq!(connection.next_operation(), Some(Operation::Shutdown));
    assert_eq!(
        connection.shutdown_flags(),
        SHUTDOWN_SEND | SHUTDOWN_RECEIVE
    );
    connection.told(Operation::Shutdown);
    // What the guest still sends is taken and dropped.
    connection.send(&[0; 1000]).unwrap();
    assert_eq!(connection.forwarded, 1000);
    assert_eq!(connection.next_operation(), None);
}

#[test]
fn the_greeting_goes_out_when_the_guest_accepts() {
    let (ours, mut host) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut connection = Connection::from_host(ours, 1 << 30);
    assert_eq!(connection.next_operation(), Some(Operation::Request));
    connection.told(Operation::Request);
    assert_eq!(connection.send(b"too early"), Err(Violation::State));
    assert!(connection.accept());
    assert!(!connection.accept());
    let mut line = [0; 14];
    host.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"OK 1073741824\n");
}

#[test]
fn a_host_program_that_gives_up_is_noticed() {
    let (ours, mut host) = UnixStream::pair().unwrap();
    let mut connection = Connection::from_host(ours, 1 << 30);
    assert!(!connection.host_gave_up());
    host.write_all(b"early").unwrap();
    assert!(!connection.host_gave_up());
    let (ours, host) = UnixStream::pair().unwrap();
    let mut connection = Connection::from_host(ours, 1 << 30);
    drop(host);
    assert!(connection.host_gave_up());
}
