//! The boot event log (TCG PC Client Platform Firmware Profile, 10), as the kernel shows it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rootbound_common::blob::Blob;
use rootbound_common::wire::v1::BootLogPart;

use super::CollectError;

/// Text and digests: higher levels save a few percent for many times the work.
const LEVEL: i32 = 3;

/// Reads the whole log. A file that is not there, or empty, is a kernel that exposes none.
pub fn read(path: &Path) -> Result<BootLogPart, CollectError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BootLogPart::Absent),
        Err(error) => return Err(CollectError::read(path)(error)),
    };
    let limit = BootLogPart::MAX;
    let too_long = || CollectError::TooLong { path: path.to_owned(), limit };
    let mut log = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut log).map_err(CollectError::read(path))?;
    if log.is_empty() {
        return Ok(BootLogPart::Absent);
    }
    if log.len() > limit {
        return Err(too_long());
    }
    let frame = zstd::encode_all(log.as_slice(), LEVEL).map_err(CollectError::read(path))?;
    Ok(BootLogPart::Present { zstd: Blob::new(frame).ok_or_else(too_long)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_that_is_not_there_is_absent_and_one_that_is_comes_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        assert!(matches!(read(&path), Ok(BootLogPart::Absent)));
        std::fs::write(&path, []).unwrap();
        assert!(matches!(read(&path), Ok(BootLogPart::Absent)));
        let log: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, &log).unwrap();
        let Ok(BootLogPart::Present { zstd: frame }) = read(&path) else { panic!("absent") };
        assert_eq!(zstd::decode_all(frame.as_bytes()).unwrap(), log);
        std::fs::write(&path, vec![0; BootLogPart::MAX + 1]).unwrap();
        assert!(matches!(read(&path), Err(CollectError::TooLong { .. })));
        assert!(matches!(read(folder.path()), Err(CollectError::Read { .. })), "a folder");
    }
}
