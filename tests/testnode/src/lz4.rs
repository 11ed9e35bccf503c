//! Decoder for the legacy LZ4 frame, in which Debian 12's kernels are compressed.
//!
//! Formats: `lz4_Frame_format.md`, "Legacy frame", and `lz4_Block_format.md`.

/// First four bytes of a legacy frame.
pub const MAGIC: [u8; 4] = 0x184c_2102_u32.to_le_bytes();
/// Most bytes that one block of a legacy frame expands to.
const BLOCK_LIMIT: usize = 8 << 20;
/// A match is at least this long; its length field counts from here.
const SHORTEST_MATCH: usize = 4;

/// Why a frame could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lz4Error {
    /// The frame does not begin with [`MAGIC`].
    #[error("not a legacy LZ4 frame")]
    Magic,
    /// A block ends in the middle of a sequence.
    #[error("LZ4 block ends too early")]
    Short,
    /// A match points before the beginning of its block.
    #[error("LZ4 match points before its block")]
    Offset,
    /// A block expands beyond the format's limit.
    #[error("LZ4 block expands to more than {BLOCK_LIMIT} bytes")]
    TooLong,
}

/// Expands a legacy frame. It has no end mark: a block size that cannot be one (the
/// kernel build appends the expanded size) or the end of the input ends it.
pub fn decode_legacy(frame: &[u8]) -> Result<Vec<u8>, Lz4Error> {
    let mut rest = frame.strip_prefix(&MAGIC).ok_or(Lz4Error::Magic)?;
    let mut out = Vec::new();
    while let Some((size, blocks)) = rest.split_first_chunk::<4>() {
        let size = u32::from_le_bytes(*size) as usize;
        let Some((block, after)) = blocks.split_at_checked(size).filter(|_| size > 0) else {
            break;
        };
        decode_block(block, &mut out)?;
        rest = after;
    }
    Ok(out)
}

fn decode_block(block: &[u8], out: &mut Vec<u8>) -> Result<(), Lz4Error> {
    let start = out.len();
    let mut input = Input(block);
    while !input.0.is_empty() {
        let token = input.byte()?;
        let literals = input.length(token >> 4)?;
        out.extend_from_slice(input.take(literals)?);
        check_length(out.len() - start)?;
        if input.0.is_empty() {
            // The last sequence has no match.
            return Ok(());
        }
        let offset = usize::from(u16::from_le_bytes([input.byte()?, input.byte()?]));
        let length = input.length(token & 0xf)? + SHORTEST_MATCH;
        check_length(out.len() - start + length)?;
        let from = out
            .len()
            .checked_sub(offset)
            .filter(|from| offset > 0 && *from >= start);
        copy_match(out, from.ok_or(Lz4Error::Offset)?, length);
    }
    Ok(())
}

/// A match may overlap what it produces: then it repeats.
fn copy_match(out: &mut Vec<u8>, from: usize, mut length: usize) {
    while length > 0 {
        let available = (out.len() - from).min(length);
        out.extend_from_within(from..from + available);
        length -= available;
    }
}

fn check_length(length: usize) -> Result<(), Lz4Error> {
    if length > BLOCK_LIMIT {
        Err(Lz4Error::TooLong)
    } else {
        Ok(())
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, Lz4Error> {
        let (first, rest) = self.0.split_first().ok_or(Lz4Error::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Lz4Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Lz4Error::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Four bits; 15 means that bytes follow, up to and with the first below 255.
    fn length(&mut self, nibble: u8) -> Result<usize, Lz4Error> {
        let mut length = usize::from(nibble);
        if nibble == 15 {
            loop {
                let more = self.byte()?;
                length += usize::from(more);
                if more < 255 {
                    break;
                }
            }
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn frame(block: &[u8]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        frame.extend_from_slice(&(block.len() as u32).to_le_bytes());
        frame.extend_from_slice(block);
        frame
    }

    #[test]
    fn overlapping_matches_repeat() {
        // "ab", then a match of 4+2 bytes at distance 2, then the literal "!".
        let block = [0x22, b'a', b'b', 2, 0, 0x10, b'!'];
        assert_eq!(decode_legacy(&frame(&block)).unwrap(), b"abababab!");
    }

    #[test]
    fn hostile_blocks_are_errors() {
        assert_eq!(decode_legacy(b"nope"), Err(Lz4Error::Magic));
        // Match before the start; distance zero; literals beyond the end.
        assert_eq!(
            decode_legacy(&frame(&[0x10, b'a', 9, 0])),
            Err(Lz4Error::Offset)
        );
        assert_eq!(
            decode_legacy(&frame(&[0x10, b'a', 0, 0])),
            Err(Lz4Error::Offset)
        );
        assert_eq!(
            decode_legacy(&frame(&[0xf0, 200, b'a'])),
            Err(Lz4Error::Short)
        );
        // 4 + 15 + 33000 * 255 bytes from one match: above 8 MiB.
        let mut bomb = vec![0x1f, b'a', 1, 0];
        bomb.resize(33_004, 255);
        bomb.push(0);
        assert_eq!(decode_legacy(&frame(&bomb)), Err(Lz4Error::TooLong));
    }

    #[test]
    fn decodes_what_the_lz4_program_wrote() {
        let plain: Vec<u8> = (0..9_000_000u32)
            .flat_map(|i| (i / 700).to_le_bytes())
            .collect();
        let mut lz4 = Command::new("lz4")
            .args(["-l", "-c", "-q"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = lz4.stdin.take().unwrap();
        let input = plain.clone();
        let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
        let packed = lz4.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        assert!(decode_legacy(&packed).unwrap() == plain);
    }
}
