//! Runs inside the guest of the node tests: vsock ends with known data, or with arguments
//! accesses to a BAR ([`access`]).
//!
//! Port 1024 takes data to its end and answers "<bytes> <checksum>\n". Port 1025 takes a
//! number (u64, little endian) and gives that many bytes. Then the host's port 5000 is sent
//! `DIAL_BYTES` bytes, and its answer is printed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const SINK_PORT: u32 = 1024;
const SOURCE_PORT: u32 = 1025;
const HOST_PORT: u32 = 5000;
const DIAL_BYTES: u64 = 12 << 20;
const CHUNK_BYTES: usize = 64 << 10;

fn address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero bytes are a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

fn check(outcome: i32) -> io::Result<i32> {
    if outcome < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(outcome)
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the descriptor is owned by the result alone.
    unsafe {
        Ok(OwnedFd::from_raw_fd(check(libc::socket(
            libc::AF_VSOCK,
            libc::SOCK_STREAM,
            0,
        ))?))
    }
}

fn listen(port: u32) -> io::Result<OwnedFd> {
    let (socket, address) = (socket()?, address(libc::VMADDR_CID_ANY, port));
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is initialised and as long as said.
    unsafe {
        check(libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            length,
        ))?;
        check(libc::listen(socket.as_raw_fd(), 8))?;
    }
    Ok(socket)
}

fn accept(listener: &OwnedFd) -> io::Result<File> {
    let (none, no_length) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: plain system call; the descriptor is owned by the result alone.
    unsafe {
        Ok(File::from_raw_fd(check(libc::accept(
            listener.as_raw_fd(),
            none,
            no_length,
        ))?))
    }
}

fn dial(port: u32) -> io::Result<File> {
    let (socket, address) = (socket()?, address(libc::VMADDR_CID_HOST, port));
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address is initialised and as long as said.
    unsafe {
        check(libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            length,
        ))?
    };
    Ok(File::from(socket))
}

fn pattern(offset: u64) -> u8 {
    (offset ^ offset >> 8 ^ offset >> 16) as u8
}

fn give(stream: &mut File, bytes: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < bytes {
        let count = (bytes - done).min(CHUNK_BYTES as u64) as usize;
        for (index, byte) in chunk[..count].iter_mut().enumerate() {
            *byte = pattern(done + index as u64);
        }
        stream.write_all(&chunk[..count])?;
        done += count as u64;
    }
    Ok(())
}

fn take(stream: &mut File) -> io::Result<String> {
    let (mut total, mut good) = (0u64, true);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(format!("{total} {}\n", if good { "good" } else { "bad" }));
        }
        for (index, byte) in chunk[..count].iter().enumerate() {
            good &= *byte == pattern(total + index as u64);
        }
        total += count as u64;
    }
}

/// `FILE OFFSET COUNT`: writes COUNT numbers into a page of a BAR and reads them back;
/// `FILE OFFSET byte VALUE LENGTH`: writes a byte to a register, then shows LENGTH bytes from
/// the start of its page.
fn access(arguments: &[String]) -> io::Result<()> {
    const PAGE_BYTES: usize = 4096;
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let number = |at: usize| -> io::Result<u64> {
        let text = arguments.get(at).ok_or_else(invalid)?;
        text.parse().map_err(|_| invalid())
    };
    let (path, offset) = (arguments.first().ok_or_else(invalid)?, number(1)?);
    let page = offset / PAGE_BYTES as u64 * PAGE_BYTES as u64;
    let inside = (offset - page) as usize;
    let file = File::options().read(true).write(true).open(path)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new shared mapping of one page.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            PAGE_BYTES,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            page as libc::off_t,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every access stays in the page that was mapped.
    unsafe {
        if arguments.get(2).is_some_and(|word| word == "byte") {
            let value = number(3)? as u8;
            start.cast::<u8>().add(inside).write_volatile(value);
            let length = (number(4)? as usize).min(PAGE_BYTES);
            let bytes: Vec<u8> = (0..length)
                .map(|at| start.cast::<u8>().add(at).read_volatile())
                .collect();
            println!("MARK bytes {}", String::from_utf8_lossy(&bytes));
        } else {
            let cells = (PAGE_BYTES - inside) / size_of::<u32>();
            let cell = |at: u64| {
                start
                    .byte_add(inside)
                    .cast::<u32>()
                    .add(at as usize % cells)
            };
            let mut good = 0;
            for at in 0..number(2)? {
                cell(at).write_volatile(at as u32 ^ 0x5aa5_a55a);
                good += u64::from(cell(at).read_volatile() == at as u32 ^ 0x5aa5_a55a);
            }
            println!("MARK good {good}");
        }
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.is_empty() {
        return access(&arguments);
    }
    let (sink, source) = (listen(SINK_PORT)?, listen(SOURCE_PORT)?);
    println!("MARK listening");
    let sinks = std::thread::spawn(move || -> io::Result<()> {
        loop {
            let mut stream = accept(&sink)?;
            let answer = take(&mut stream)?;
            stream.write_all(answer.as_bytes())?;
        }
    });
    std::thread::spawn(move || -> io::Result<()> {
        loop {
            let mut stream = accept(&source)?;
            let mut bytes = [0; 8];
            stream.read_exact(&mut bytes)?;
            give(&mut stream, u64::from_le_bytes(bytes))?;
        }
    });
    match dial(HOST_PORT + 1) {
        Ok(_) => println!("MARK a port without listener answered"),
        Err(error) => println!("MARK refused {:?}", error.kind()),
    }
    let mut stream = dial(HOST_PORT)?;
    give(&mut stream, DIAL_BYTES)?;
    // SAFETY: plain system call on an open descriptor.
    unsafe { check(libc::shutdown(stream.as_raw_fd(), libc::SHUT_WR))? };
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    println!("MARK host says {answer}");
    drop(stream);
    sinks
        .join()
        .map_err(|_| io::Error::other("a thread panicked"))?
}
