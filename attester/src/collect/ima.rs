//! The kernel's IMA list, read entry by entry: never held as a whole, since it grows for as long as the machine runs.
//!
//! An entry is PCR index (u32) ‖ SHA-1 template digest (20) ‖ length (u32) ‖ template name ‖ length (u32) ‖ template data, in
//! the byte order of the machine. Template `ima`, the oldest, has no length of its data: a digest (20) ‖ length ‖ name.
//! (Linux, `ima_measurements_show`.)

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use rootbound_common::blob::Blob;
use rootbound_common::wire::v1::ImaPart;

use super::CollectError;

/// Digests do not compress: what does, does so at the lowest level.
const LEVEL: i32 = 1;

/// Bytes of a frame after which no further entry is begun: the encoder may hold back a block of 128 KB, which may then take
/// as much, and the longest entry comes on top of it.
const FRAME: usize = 2 * 1024 * 1024 - 256 * 1024;

/// The longest entry: buffers that are measured as a whole (keys, device-mapper tables) take some KB, paths at most 4 KB.
const ENTRY: usize = 1024 * 1024;

/// Template names are `ima`, `ima-ng` and the like; the kernel's limit is 15 characters.
const NAME: usize = 32;

const HEAD: usize = 4 + 20 + 4;

/// Reads a list, and remembers where in the file the last entry began: it is read again, to see that it is still there.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    position: Position,
}

/// Where an entry begins, in the list of one boot.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    reset_count: u32,
    entries: u64,
    offset: u64,
}

/// How reading entries came to its end.
enum Stopped {
    /// After the last entry that there is.
    AtEnd,
    /// Before another one that no longer fits.
    Full,
}

impl Reader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, position: Position::default() }
    }

    /// Reads entries from number `from` on, as many as fit into one message. A list that has fewer (the kernel was changed by
    /// kexec, or has cut the list) is read from its beginning, and says so by `from`.
    pub fn read(&mut self, from: u64, reset_count: u32) -> Result<ImaPart, CollectError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ImaPart::Absent),
            Err(error) => return Err(CollectError::read(&self.path)(error)),
        };
        let start = Position { reset_count, ..Position::default() };
        let here = if self.position.reset_count == reset_count && self.position.entries <= from {
            self.position
        } else {
            start
        };
        let mut scan = self.scan(file, here)?;
        match scan.skip(from) {
            Ok(true) => {}
            // What was remembered may be of a list that is there no longer: once more, from the beginning.
            Ok(false) | Err(CollectError::NotAList { .. }) if here.entries > 0 => {
                scan = scan.restart(start)?;
                if !scan.skip(from)? {
                    scan = scan.restart(start)?;
                }
            }
            Ok(false) => scan = scan.restart(start)?,
            Err(error) => return Err(error),
        }
        let from = scan.position.entries;
        let (frame, stopped) = scan.pack()?;
        self.position = scan.previous;
        let limit = 3 * 1024 * 1024;
        let zstd =
            Blob::new(frame).ok_or_else(|| CollectError::TooLong { path: self.path.clone(), limit })?;
        Ok(ImaPart::Present { from, zstd, more: matches!(stopped, Stopped::Full) })
    }

    fn scan(&self, mut file: File, position: Position) -> Result<Scan<'_>, CollectError> {
        file.seek(SeekFrom::Start(position.offset)).map_err(CollectError::read(&self.path))?;
        Ok(Scan {
            path: &self.path,
            file: BufReader::with_capacity(64 * 1024, file),
            position,
            previous: position,
            entry: Vec::new(),
        })
    }
}

/// Goes through the list once.
struct Scan<'a> {
    path: &'a PathBuf,
    file: BufReader<File>,
    position: Position,
    /// Where the entry before began.
    previous: Position,
    entry: Vec<u8>,
}

impl Scan<'_> {
    fn restart(mut self, position: Position) -> Result<Self, CollectError> {
        self.file.seek(SeekFrom::Start(position.offset)).map_err(CollectError::read(self.path))?;
        (self.position, self.previous) = (position, position);
        Ok(self)
    }

    /// Goes to an entry; `false`: the list ends before it.
    fn skip(&mut self, to: u64) -> Result<bool, CollectError> {
        while self.position.entries < to {
            if !self.next()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Compresses the entries from here on, until the message is full.
    fn pack(&mut self) -> Result<(Vec<u8>, Stopped), CollectError> {
        let failed = CollectError::read(self.path);
        let mut encoder = match zstd::Encoder::new(Vec::new(), LEVEL) {
            Ok(encoder) => encoder,
            Err(error) => return Err(failed(error)),
        };
        let mut raw = 0;
        loop {
            if raw + ENTRY > ImaPart::MAX || encoder.get_ref().len() > FRAME {
                let more = self.more()?;
                let frame = encoder.finish().map_err(failed)?;
                return Ok((frame, if more { Stopped::Full } else { Stopped::AtEnd }));
            }
            if !self.next()? {
                return Ok((encoder.finish().map_err(failed)?, Stopped::AtEnd));
            }
            raw += self.entry.len();
            if let Err(error) = encoder.write_all(&self.entry) {
                return Err(failed(error));
            }
        }
    }

    /// Whether anything follows.
    fn more(&mut self) -> Result<bool, CollectError> {
        Ok(!self.file.fill_buf().map_err(CollectError::read(self.path))?.is_empty())
    }

    /// Reads the next entry into `entry`; `false`: there is none.
    fn next(&mut self) -> Result<bool, CollectError> {
        if !self.more()? {
            return Ok(false);
        }
        self.entry.clear();
        self.take(HEAD)?;
        let name = self.number(HEAD - 4)?;
        if name > NAME {
            return Err(self.not_a_list());
        }
        self.take(name)?;
        if self.entry.get(HEAD..) == Some(b"ima") {
            self.take(20)?;
        }
        let at = self.entry.len();
        self.take(4)?;
        let length = self.number(at)?;
        self.take(length)?;
        self.previous = self.position;
        self.position.entries += 1;
        self.position.offset += u64::try_from(self.entry.len()).unwrap_or(u64::MAX);
        Ok(true)
    }

    /// Appends so many bytes of the file to the entry.
    fn take(&mut self, length: usize) -> Result<(), CollectError> {
        if self.entry.len().saturating_add(length) > ENTRY {
            return Err(self.not_a_list());
        }
        let wanted = u64::try_from(length).unwrap_or(u64::MAX);
        let read = (&mut self.file).take(wanted).read_to_end(&mut self.entry);
        match read.map_err(CollectError::read(self.path))? {
            read if read == length => Ok(()),
            _ => Err(self.not_a_list()),
        }
    }

    fn number(&self, at: usize) -> Result<usize, CollectError> {
        let bytes = self.entry.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        let number = bytes.map(u32::from_ne_bytes).and_then(|number| usize::try_from(number).ok());
        number.ok_or_else(|| self.not_a_list())
    }

    fn not_a_list(&self) -> CollectError {
        CollectError::NotAList { path: self.path.clone(), entry: self.position.entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn entry(template: &str, data: &[u8]) -> Vec<u8> {
        let mut entry = 10u32.to_ne_bytes().to_vec();
        entry.extend([7; 20]);
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_ne_bytes();
        entry.extend(length(template.as_bytes()));
        entry.extend(template.as_bytes());
        if template == "ima" {
            entry.extend([8; 20]);
        }
        entry.extend(length(data));
        entry.extend(data);
        entry
    }

    fn list(count: usize) -> Vec<Vec<u8>> {
        let template = |number| if number % 7 == 3 { "ima" } else { "ima-ng" };
        (0..count).map(|number| entry(template(number), format!("/bin/{number}").as_bytes())).collect()
    }

    fn write(path: &Path, entries: &[Vec<u8>]) {
        std::fs::write(path, entries.concat()).unwrap();
    }

    /// The first entry's number, the bytes, and whether there is more.
    fn read(reader: &mut Reader, from: u64) -> (u64, Vec<u8>, bool) {
        match reader.read(from, 1).unwrap() {
            ImaPart::Present { from, zstd, more } => (from, zstd::decode_all(zstd.as_bytes()).unwrap(), more),
            ImaPart::Absent => panic!("absent"),
        }
    }

    #[test]
    fn what_is_new_is_read_whatever_was_read_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut reader = Reader::new(path.clone());
        assert!(matches!(reader.read(0, 1), Ok(ImaPart::Absent)));
        let entries = list(50);
        write(&path, &entries[..20]);
        assert_eq!(read(&mut reader, 0), (0, entries[..20].concat(), false));
        assert_eq!(read(&mut reader, 20), (20, Vec::new(), false));
        write(&path, &entries);
        assert_eq!(read(&mut reader, 20), (20, entries[20..].concat(), false));
        assert_eq!(read(&mut reader, 13), (13, entries[13..].concat(), false));
        assert_eq!(read(&mut reader, 49), (49, entries[49..].concat(), false));
    }

    #[test]
    fn list_that_became_shorter_is_read_from_its_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut reader = Reader::new(path.clone());
        let entries = list(50);
        write(&path, &entries);
        assert_eq!(read(&mut reader, 0).1.len(), entries.concat().len());
        write(&path, &entries[30..40]);
        assert_eq!(read(&mut reader, 50), (0, entries[30..40].concat(), false));
        assert_eq!(read(&mut reader, 5), (5, entries[35..40].concat(), false));
    }

    #[test]
    fn list_that_does_not_fit_into_one_message_comes_in_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut state = 1u64;
        let mut noise = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let entries: Vec<_> =
            (0..9000).map(|_| entry("ima-ng", &(0..1000).map(&mut noise).collect::<Vec<_>>())).collect();
        write(&path, &entries);
        let mut reader = Reader::new(path);
        let (mut all, mut messages) = (Vec::new(), 0);
        loop {
            let from = u64::try_from(all.len() / entries[0].len()).unwrap();
            let (first, bytes, more) = read(&mut reader, from);
            assert_eq!(first, from);
            assert!(bytes.len() <= ImaPart::MAX && !bytes.is_empty());
            all.extend(bytes);
            messages += 1;
            if !more {
                break;
            }
        }
        assert_eq!(all, entries.concat());
        assert!((3..10).contains(&messages), "{messages}");
    }

    #[test]
    fn file_that_is_no_list_is_refused_without_reading_it_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let good = entry("ima-ng", b"data");
        let mut long = entry("ima-ng", b"");
        let at = long.len() - 4;
        long[at..].copy_from_slice(&u32::MAX.to_ne_bytes());
        for bad in [&b"not a list"[..], &good[..good.len() - 1], &long, &entry(&"n".repeat(33), b"")] {
            std::fs::write(&path, [&good, bad].concat()).unwrap();
            let refused = Reader::new(path.clone()).read(0, 1);
            assert!(matches!(refused, Err(CollectError::NotAList { entry: 1, .. })), "{refused:?}");
        }
    }
}
