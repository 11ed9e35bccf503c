//! A file read at positions of its own: the offset of the shared open file is not used.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use vm_memory::bitmap::BitmapSlice;
use vm_memory::{ReadVolatile, VolatileMemoryError, VolatileSlice};

/// See the module.
pub struct Source<'a> {
    file: &'a File,
    position: u64,
    length: u64,
}

impl<'a> Source<'a> {
    pub fn new(file: &'a File) -> io::Result<Self> {
        Ok(Self {
            file,
            position: 0,
            length: file.metadata()?.len(),
        })
    }

    pub fn len(&self) -> u64 {
        self.length
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Source<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.length.checked_add_signed(delta),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

impl ReadVolatile for Source<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        slice: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let guard = slice.ptr_guard_mut();
        let offset = libc::off_t::try_from(self.position)
            .map_err(|_| VolatileMemoryError::IOError(io::ErrorKind::InvalidInput.into()))?;
        loop {
            // SAFETY: the guard keeps `slice.len()` writable bytes valid for the call.
            let count = unsafe {
                libc::pread(
                    self.file.as_raw_fd(),
                    guard.as_ptr().cast(),
                    slice.len(),
                    offset,
                )
            };
            if count >= 0 {
                self.position += count as u64;
                return Ok(count as usize);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(VolatileMemoryError::IOError(error));
            }
        }
    }
}
