//! Unpacking bodies, a little at a time.
//!
//! Bounded by what comes out, and by what goes in for it: members and blocks that bring nothing cost their sender the
//! body. Work is cut into pieces, so that whoever unpacks can turn to others between two of them.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{HeaderMap, header::CONTENT_ENCODING};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::memory::{BodyBytes, BodyError};
use crate::http::{
    heavy::{Heavy, Turn},
    memory::SharedMemory,
};

/// A `Content-Encoding` that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The largest window that RFC 9659 lets `zstd` on the web ask for: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// How gzip begins: its two magic bytes, and the only method there is.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b, 8];
/// The most that goes in, and the most that comes out, before the clock is looked at.
const PIECE_IN_BYTES: usize = 256;
const PIECE_OUT_BYTES: usize = 16 * 1024;
/// The buffer that brotli takes its input through.
const BROTLI_INPUT_BYTES: usize = 4 * 1024;
/// About how long one step takes.
const STEP: Duration = Duration::from_millis(1);
/// What may go in for nothing: heads, tables, and what a decoder holds back until it has a block or a window.
const IN_FOR_NOTHING_BYTES: usize = 8 * 1024;
/// As much again for what is held back in blocks of up to 128 KiB, by zstd.
const ZSTD_BLOCK_BYTES: usize = 2 * 128 * 1024;
/// gzip and deflate up to this size are unpacked where they are read: the way to another thread costs more.
const INLINE_BYTES_MAX: usize = 4 * 1024;

/// The most that a packed body may be, for so much that may come out: what cannot be packed grows a little by it.
pub(super) fn packed_bytes_max(bytes_max: usize) -> usize {
    bytes_max + bytes_max / 8 + IN_FOR_NOTHING_BYTES
}

impl Encoding {
    /// What the headers name: `Ok(None)` if nothing, an error if something that is not taken.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, BodyError> {
        let mut found = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| BodyError::Encoding)?.split(',') {
                let encoding = match name.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
                    "deflate" => Self::Deflate,
                    "br" => Self::Brotli,
                    "zstd" => Self::Zstd,
                    _ => return Err(BodyError::Encoding),
                };
                // Packed twice is a bomb or a mistake.
                if found.replace(encoding).is_some() {
                    return Err(BodyError::Encoding);
                }
            }
        }
        Ok(found)
    }

    /// Whether this is the beginning of gzip: some clients send it and do not say so, or say something else.
    pub(super) fn is_gzip(beginning: &[u8]) -> bool {
        beginning.starts_with(GZIP_MAGIC)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "brotli",
            Self::Zstd => "zstd",
        }
    }

    fn decoder(self, packed: Packed) -> io::Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            // RFC 9110 means zlib; what browsers and old clients send is as often the bare stream.
            Self::Deflate if packed.begins_as_zlib() => Box::new(flate2::bufread::ZlibDecoder::new(packed)),
            Self::Deflate => Box::new(flate2::bufread::DeflateDecoder::new(packed)),
            Self::Brotli => Box::new(brotli_decompressor::Decompressor::new(packed, BROTLI_INPUT_BYTES)),
            Self::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
                Box::new(decoder)
            }
        })
    }
}

/// How many bodies of an encoding may be unpacked at once: each decoder takes memory of its own.
pub(super) struct UnpackSlots {
    deflate: Semaphore,
    brotli: Semaphore,
    zstd: Semaphore,
}

/// What a decoder of gzip and deflate takes, its window included, in bytes.
const DEFLATE_DECODER_BYTES: usize = 64 * 1024;
/// What one of brotli takes beside its window, which grows with what has come out: its tables, at their largest.
const BROTLI_DECODER_BYTES: usize = 5 << 20;
/// What one of zstd takes beside its window.
const ZSTD_DECODER_BYTES: usize = 1 << 20;

impl UnpackSlots {
    /// As many decoders as fit in `bytes`, and one of each kind in any case; `bytes_max` is the largest body.
    pub(super) fn new(bytes: usize, bytes_max: usize) -> Self {
        let fitting = |part: usize, each: usize| Semaphore::new((part / each).max(1));
        Self {
            deflate: fitting(bytes / 8, DEFLATE_DECODER_BYTES),
            brotli: fitting(bytes / 2, bytes_max + BROTLI_DECODER_BYTES),
            zstd: fitting(bytes / 8 * 3, bytes_max + ZSTD_DECODER_BYTES),
        }
    }

    async fn take(&self, encoding: Encoding) -> Option<SemaphorePermit<'_>> {
        let slots = match encoding {
            Encoding::Gzip | Encoding::Deflate => &self.deflate,
            Encoding::Brotli => &self.brotli,
            Encoding::Zstd => &self.zstd,
        };
        // They are never closed.
        slots.acquire().await.ok()
    }
}

/// Unpacks a body, with the room behind it that its reader wants: small ones here, large ones on another thread.
pub(super) async fn unpack(
    encoding: Encoding,
    packed: BodyBytes,
    (bytes_max, spare): (usize, usize),
    memory: &SharedMemory,
    (heavy, slots): (&Heavy, &UnpackSlots),
) -> Result<BodyBytes, BodyError> {
    let mut is_small = matches!(encoding, Encoding::Gzip | Encoding::Deflate) && packed.len() <= INLINE_BYTES_MAX;
    let mut slot = None;
    if !is_small {
        slot = slots.take(encoding).await;
    }
    let mut unpacking = Unpacking::new(encoding, packed, (bytes_max, spare), memory)?;
    loop {
        let step = if is_small {
            is_small = false;
            unpacking.step()
        } else {
            if slot.is_none() {
                slot = slots.take(encoding).await;
            }
            let mut begun = Some(unpacking);
            let stepped = heavy.run(Turn::First, move || {
                let step = begun.as_mut()?.step();
                if matches!(step, Step::More) { None } else { begun.take().map(|begun| (begun, step)) }
            });
            let Some((begun, step)) = stepped.await else { return Err(BodyError::Memory) };
            unpacking = begun;
            step
        };
        match step {
            Step::More => {}
            Step::Room(more) => unpacking.body.reserve_in_time(more).await?,
            Step::Done => {
                unpacking.body.was_packed(unpacking.packed_len);
                return Ok(unpacking.body);
            }
            Step::Failed(failure) => return Err(failure),
        }
    }
}

/// A body that is being unpacked.
struct Unpacking {
    encoding: Encoding,
    decoder: Box<dyn Read + Send>,
    ration: Arc<Ration>,
    packed_len: usize,
    body: BodyBytes,
    bytes_max: usize,
    spare: usize,
}

/// What has become of a body after a step.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is more to do.
    More,
    /// It needs room for so many bytes.
    Room(usize),
    Done,
    Failed(BodyError),
}

impl Unpacking {
    fn new(
        encoding: Encoding,
        packed: BodyBytes,
        (bytes_max, spare): (usize, usize),
        memory: &SharedMemory,
    ) -> Result<Self, BodyError> {
        let ration = Arc::new(Ration::default());
        let packed_len = packed.len();
        let decoder = encoding
            .decoder(Packed { bytes: packed, at: 0, ration: Arc::clone(&ration) })
            .map_err(|error| damaged(encoding, &error))?;
        Ok(Self { encoding, decoder, ration, packed_len, body: BodyBytes::new(memory, 0), bytes_max, spare })
    }

    /// Goes on for about a millisecond.
    fn step(&mut self) -> Step {
        let until = Instant::now() + STEP;
        let mut piece = [0; PIECE_OUT_BYTES];
        loop {
            // Before the piece is taken out of the decoder: it could not be put back.
            if self.body.reserve(PIECE_OUT_BYTES.min(self.bytes_max - self.body.len()) + self.spare).is_err() {
                return Step::Room(PIECE_OUT_BYTES + self.spare);
            }
            self.ration.left.store(PIECE_IN_BYTES, Ordering::Relaxed);
            match self.decoder.read(&mut piece) {
                // brotli takes in more than it needs, and says so only when it is asked for still more.
                Ok(0)
                    if self.ration.taken.load(Ordering::Relaxed) < self.packed_len
                        || self.decoder.read(&mut piece).is_err() =>
                {
                    return Step::Failed(BodyError::Damaged(format!("something follows the {}", self.encoding.name())));
                }
                Ok(0) => return Step::Done,
                Ok(count) if self.body.len() + count > self.bytes_max => {
                    return Step::Failed(BodyError::TooLarge(self.bytes_max));
                }
                Ok(count) => {
                    if let Err(failure) = self.body.append(&piece[..count]) {
                        return Step::Failed(failure);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Step::Failed(damaged(self.encoding, &error)),
            }
            if self.brings_nothing() {
                let text = format!("its {} is larger than what comes out of it", self.encoding.name());
                return Step::Failed(BodyError::Damaged(text));
            }
            if Instant::now() >= until {
                return Step::More;
            }
        }
    }

    /// Whether far more has gone in than has come out. brotli holds back as much as its window, so it alone is bounded
    /// by what may go in at all.
    fn brings_nothing(&self) -> bool {
        let (taken, out) = (self.ration.taken.load(Ordering::Relaxed), self.body.len());
        let held_back = match self.encoding {
            Encoding::Gzip | Encoding::Deflate => 0,
            Encoding::Zstd => ZSTD_BLOCK_BYTES,
            Encoding::Brotli => self.bytes_max,
        };
        taken > packed_bytes_max(out) + held_back
    }
}

fn damaged(encoding: Encoding, error: &io::Error) -> BodyError {
    BodyError::Damaged(format!("not valid {}: {error}", encoding.name()))
}

/// How much of a packed body may be taken before the next look at the clock, and how much has been.
#[derive(Default)]
struct Ration {
    left: AtomicUsize,
    taken: AtomicUsize,
}

/// A packed body, handed out in rations.
struct Packed {
    bytes: BodyBytes,
    at: usize,
    ration: Arc<Ration>,
}

impl Packed {
    /// RFC 1950, section 2.2: method 8, and a multiple of 31.
    fn begins_as_zlib(&self) -> bool {
        let [method, flags, ..] = *self.bytes.as_slice() else { return false };
        method & 0x0f == 8 && u16::from_be_bytes([method, flags]).is_multiple_of(31)
    }
}

impl BufRead for Packed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let rest = &self.bytes.as_slice()[self.at..];
        match self.ration.left.load(Ordering::Relaxed) {
            0 if !rest.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            left => Ok(&rest[..left.min(rest.len())]),
        }
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
        self.ration.left.fetch_sub(count, Ordering::Relaxed);
        self.ration.taken.fetch_add(count, Ordering::Relaxed);
    }
}

impl Read for Packed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
