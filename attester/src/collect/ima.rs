//! The kernel's IMA list, read entry by entry: never held as a whole, since it grows for as long as the machine runs.
//!
//! An entry is PCR index (u32) ‖ SHA-1 template digest (20) ‖ length (u32) ‖ template name ‖ length (u32) ‖ template data, in
//! the byte order of the machine. Template `ima`, the oldest, has no length of its data: a digest (20) ‖ length ‖ name.
//! (Linux, `ima_measurements_show`.)

use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

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

/// Reads a list, and remembers the last entry that it read, and where: from there it goes on, also where the kernel has
/// dropped entries from the front meanwhile.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    last: Option<Last>,
}

/// The last entry of the boot that was read.
#[derive(Debug)]
struct Last {
    reset_count: u32,
    position: Position,
    entry: Vec<u8>,
    /// Whether its number is that of the file only: the kernel has dropped we know not how many before it.
    renumbered: bool,
}

/// Where an entry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Position {
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
        Self { path, last: None }
    }

    /// Reads entries from number `from` on, as many as fit into one message. A list that has fewer (the kernel was changed by
    /// kexec, or has cut the list) is read from its beginning, and says so by `from`.
    pub fn read(&mut self, from: u64, reset_count: u32) -> Result<ImaPart, CollectError> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ImaPart::Absent),
            Err(error) => return Err(CollectError::read(&self.path)(error)),
        };
        let mut scan = Scan::new(&self.path, file);
        let last = self.last.as_ref().filter(|last| last.reset_count == reset_count);
        let mut renumbered = last.is_some_and(|last| last.renumbered);
        let is_next =
            |last: &&Last| from > 0 && (renumbered || last.position.entries.checked_add(1) == Some(from));
        let found = match last.filter(is_next) {
            Some(last) => scan.go_on_after(last, from)?,
            None => scan.skip(from)?,
        };
        if !found {
            scan.go_to(Position::default())?;
            renumbered = true;
        }
        let from = scan.position.entries;
        let (frame, stopped) = scan.pack()?;
        if let Some((position, entry)) = scan.last {
            self.last = Some(Last { reset_count, position, entry, renumbered });
        }
        let limit = 3 * 1024 * 1024;
        let zstd =
            Blob::new(frame).ok_or_else(|| CollectError::TooLong { path: self.path.clone(), limit })?;
        Ok(ImaPart::Present { from, zstd, more: matches!(stopped, Stopped::Full) })
    }
}

/// Goes through the list once.
struct Scan<'a> {
    path: &'a Path,
    file: BufReader<File>,
    position: Position,
    entry: Vec<u8>,
    /// The last entry that was packed.
    last: Option<(Position, Vec<u8>)>,
}

impl<'a> Scan<'a> {
    fn new(path: &'a Path, file: File) -> Self {
        let file = BufReader::with_capacity(64 * 1024, file);
        Self { path, file, position: Position::default(), entry: Vec::new(), last: None }
    }
}

impl Scan<'_> {
    fn go_to(&mut self, position: Position) -> Result<(), CollectError> {
        self.file.seek(SeekFrom::Start(position.offset)).map_err(CollectError::read(self.path))?;
        self.position = position;
        Ok(())
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

    /// Goes to the entry after the last one, which has the number `to`: where that was, or else wherever it is now. `false`:
    /// it is gone.
    fn go_on_after(&mut self, last: &Last, to: u64) -> Result<bool, CollectError> {
        self.go_to(last.position)?;
        match self.next() {
            Ok(true) if self.entry == last.entry => {
                self.position.entries = to;
                return Ok(true);
            }
            // Of a list from which entries were dropped, this may be the middle of one.
            Ok(_) | Err(CollectError::NotAList { .. }) => {}
            Err(error) => return Err(error),
        }
        self.go_to(Position::default())?;
        while self.next()? {
            if self.entry == last.entry {
                self.position.entries = to;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Compresses the entries from here on, until the message is full.
    fn pack(&mut self) -> Result<(Vec<u8>, Stopped), CollectError> {
        let failed = CollectError::read(self.path);
        let mut encoder = match zstd::Encoder::new(Vec::new(), LEVEL) {
            Ok(encoder) => encoder,
            Err(error) => return Err(failed(error)),
        };
        let (mut raw, mut last) = (0, None);
        loop {
            if raw + ENTRY > ImaPart::MAX || encoder.get_ref().len() > FRAME {
                self.last = last;
                let more = self.more()?;
                let frame = encoder.finish().map_err(failed)?;
                return Ok((frame, if more { Stopped::Full } else { Stopped::AtEnd }));
            }
            let position = self.position;
            if !self.next()? {
                self.last = last;
                return Ok((encoder.finish().map_err(failed)?, Stopped::AtEnd));
            }
            raw += self.entry.len();
            last = Some((position, std::mem::take(&mut self.entry)));
            let Some((_, entry)) = &last else { continue };
            if let Err(error) = encoder.write_all(entry) {
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
        CollectError::NotAList { path: self.path.to_owned(), entry: self.position.entries }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }

    #[test]
    fn list_whose_front_was_dropped_goes_on_after_the_last_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        let mut reader = Reader::new(path.clone());
        let entries = list(50);
        write(&path, &entries[..20]);
        assert_eq!(read(&mut reader, 0).0, 0);
        for (dropped, until) in [(0, 21), (7, 30), (29, 40), (39, 50)] {
            write(&path, &entries[dropped..until]);
            let next = reader.last.as_ref().unwrap().position.entries + 1;
            let (from, bytes, _) = read(&mut reader, next);
            assert_eq!(bytes, entries[usize::try_from(from).unwrap()..until].concat(), "{dropped}");
        }
        write(&path, &entries[..0]);
        assert_eq!(read(&mut reader, 50), (0, Vec::new(), false));
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
