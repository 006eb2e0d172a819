//! Compression: what a stream is compressed with, and its decoder, with a bound on its memory.
//!
//! flate2 (zlib-rs), zstd, liblzma and lz4_flex hold a window, not the stream; how much comes out is the business of
//! [`super::limits::Given`].

use std::io::{self, BufRead, Read};

use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

use super::error::Fault;
use super::limits::Limits;

/// What a stream is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Xz,
    Zstd,
    Lz4,
}

/// How far a decoder goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// To the end of the input, over any number of frames.
    All,
    /// To the end of the first frame: the input is then behind it.
    Frame,
}

impl Compression {
    /// By its first bytes.
    pub(crate) fn of(front: &[u8]) -> Result<Self, Fault> {
        Ok(match front {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] | [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [b'B', b'Z', b'h', ..] => return Err(Fault::Unsupported("bzip2 compression")),
            [0x5d, 0, 0, ..] => return Err(Fault::Unsupported("LZMA compression of before xz")),
            [0x89, b'L', b'Z', b'O', ..] => return Err(Fault::Unsupported("LZO compression")),
            _ => Self::None,
        })
    }

    pub(crate) fn decoder<'r>(
        self,
        input: impl BufRead + 'r,
        extent: Extent,
    ) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match (self, extent) {
            (Self::None, _) => Box::new(input),
            (Self::Gzip, Extent::All) => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
            (Self::Gzip, Extent::Frame) => Box::new(flate2::bufread::GzDecoder::new(input)),
            (Self::Xz, extent) => {
                let flags = if extent == Extent::All { CONCATENATED } else { 0 };
                let stream = Stream::new_stream_decoder(Limits::DECODER_MEMORY, flags)?;
                Box::new(XzDecoder::new_stream(input, stream))
            }
            (Self::Zstd, extent) => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(Limits::DECODER_MEMORY.ilog2())?;
                if extent == Extent::Frame { Box::new(decoder.single_frame()) } else { Box::new(decoder) }
            }
            (Self::Lz4, _) => Box::new(lz4_flex::frame::FrameDecoder::new(input)),
        })
    }
}
