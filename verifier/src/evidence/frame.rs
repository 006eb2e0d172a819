//! zstd frames (RFC 8878), as logs come and are kept.

use std::io::Read as _;

use zstd::stream::read::Decoder;

/// What a frame may make a decoder hold in memory at most: 8 MiB, the recommended bound (RFC 8878, 3.1.1.1.2).
const WINDOW_LOG: u32 = 23;

/// Digests do not compress: what does, does so at a low level.
const LEVEL: i32 = 3;

/// Why bytes are no frame of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not a frame, or one that is damaged or cut off.
    #[error("it does not decompress")]
    Damaged,
    /// It would be larger than what is sent in one piece.
    #[error("it has more than {limit} bytes when decompressed")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

/// Decompresses a frame of at most `limit` bytes. Not more than that is ever held, whatever the frame says.
pub fn unpack(frame: &[u8], limit: usize) -> Result<Vec<u8>, FrameError> {
    let mut decoder = Decoder::with_buffer(frame).map_err(|_| FrameError::Damaged)?;
    decoder.window_log_max(WINDOW_LOG).map_err(|_| FrameError::Damaged)?;
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    decoder.take(most).read_to_end(&mut bytes).map_err(|_| FrameError::Damaged)?;
    if bytes.len() > limit { Err(FrameError::TooLarge { limit }) } else { Ok(bytes) }
}

/// Compresses bytes into a frame.
pub fn pack(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    // Writing into memory does not fail.
    zstd::encode_all(bytes, LEVEL).map_err(|_| FrameError::Damaged)
}

/// The same for what is short and waited for: at a fraction of the cost, and less dense, since the tables are of its length.
pub fn pack_short(bytes: &[u8]) -> Result<Vec<u8>, FrameError> {
    zstd::bulk::compress(bytes, LEVEL).map_err(|_| FrameError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_bounded_by_what_they_become() {
        let bytes = vec![7; 1_000_000];
        let frame = pack(&bytes).unwrap();
        assert!(frame.len() < 1000, "a bomb of {}", frame.len());
        assert_eq!(unpack(&frame, 1_000_000).as_deref(), Ok(bytes.as_slice()));
        assert_eq!(unpack(&pack_short(&bytes).unwrap(), 1_000_000).as_deref(), Ok(bytes.as_slice()));
        assert_eq!(unpack(&frame, 999_999), Err(FrameError::TooLarge { limit: 999_999 }));
        assert_eq!(unpack(&pack(&[]).unwrap(), 0), Ok(Vec::new()));
    }

    #[test]
    fn what_is_no_frame_or_cut_off_is_refused() {
        let frame = pack(b"some entries of a list").unwrap();
        for end in 1..frame.len() {
            assert_eq!(unpack(&frame[..end], 100), Err(FrameError::Damaged), "{end}");
        }
        assert_eq!(unpack(b"no frame", 100), Err(FrameError::Damaged));
    }

    #[test]
    fn frame_that_wants_a_large_window_is_refused() {
        use std::io::Write as _;
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&[1; 100]).unwrap();
        assert_eq!(unpack(&encoder.finish().unwrap(), 1000), Err(FrameError::Damaged));
    }
}
