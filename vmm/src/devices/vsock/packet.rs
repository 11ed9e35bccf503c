//! The packet header (virtio 1.2 §5.10.6).

/// Bytes of a header.
pub const HEADER_BYTES: usize = 44;
/// Context id of the host.
pub const HOST_CID: u64 = 2;
/// Stream sockets; the only type that is known.
pub const TYPE_STREAM: u16 = 1;
/// In `flags` of [`Operation::Shutdown`]: the sender receives no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// In `flags` of [`Operation::Shutdown`]: the sender sends no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// `op` of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Opens a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Refuses or ends one at once.
    Reset = 3,
    /// Ends one or both directions.
    Shutdown = 4,
    /// Data.
    Data = 5,
    /// Tells the credit.
    CreditUpdate = 6,
    /// Asks for the credit.
    CreditRequest = 7,
}

impl Operation {
    /// From the wire.
    pub fn from_wire(value: u16) -> Option<Self> {
        Some(match value {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// A header. Fields as on the wire; `operation` is raw because the guest may write anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct Header {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    pub length: u32,
    pub kind: u16,
    pub operation: u16,
    pub flags: u32,
    pub buffer_size: u32,
    pub forwarded: u32,
}

impl Header {
    /// From the wire.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Self {
        let number = |at: usize, width: usize| {
            bytes[at..at + width]
                .iter()
                .rev()
                .fold(0u64, |value, byte| value << 8 | u64::from(*byte))
        };
        Self {
            source_cid: number(0, 8),
            destination_cid: number(8, 8),
            source_port: number(16, 4) as u32,
            destination_port: number(20, 4) as u32,
            length: number(24, 4) as u32,
            kind: number(28, 2) as u16,
            operation: number(30, 2) as u16,
            flags: number(32, 4) as u32,
            buffer_size: number(36, 4) as u32,
            forwarded: number(40, 4) as u32,
        }
    }

    /// To the wire.
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.kind.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer_size.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_survive_the_wire() {
        let header = Header {
            source_cid: 3,
            destination_cid: HOST_CID,
            source_port: 0xdead_beef,
            destination_port: 1024,
            length: 77,
            kind: TYPE_STREAM,
            operation: Operation::Shutdown as u16,
            flags: 3,
            buffer_size: 1 << 18,
            forwarded: u32::MAX,
        };
        assert_eq!(Header::parse(&header.to_bytes()), header);
        assert_eq!(Operation::from_wire(4), Some(Operation::Shutdown));
        assert_eq!(Operation::from_wire(0), None);
        assert_eq!(Operation::from_wire(8), None);
    }
}
