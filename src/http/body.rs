//! Reading bodies: under a limit whatever the headers say, in time, decompressed, and within a memory that all
//! connections share.

use std::{
    io::{self, Read},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Body, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT},
};
use tokio::time::{Instant, timeout_at};

use crate::budget::{Budget, OverBudget, Share};

/// How bodies are read; values and reasons stand in the configuration.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Longest pause within a body.
    pub stall_timeout: Duration,
    /// Longest time for a whole body.
    pub timeout: Duration,
    /// How much of a refused body is still read, in bytes.
    pub discard_bytes_max: usize,
    /// How long a refused body is still read.
    pub discard_time_max: Duration,
}

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// Larger than this many bytes, as sent or decompressed.
    TooLarge(usize),
    /// The body came too slowly.
    Timeout,
    /// In an encoding that is not taken.
    Encoding,
    /// Not what its `Content-Encoding` says, or its chunks are malformed; with what went wrong.
    Damaged(String),
    /// All bodies together hold too much memory.
    Memory,
}

/// A body in memory, counted against what all bodies may take until it is turned into its bytes.
pub(super) struct BodyBytes {
    bytes: Vec<u8>,
    /// The size that it is said to have in the end; 0 if nobody says.
    declared: usize,
    /// Its part of what all bodies may take.
    share: Share,
}

impl BodyBytes {
    fn with_capacity(memory: &Budget, capacity: usize) -> Result<Self, BodyError> {
        let mut body = Self { bytes: Vec::new(), declared: 0, share: memory.share() };
        body.reserve(capacity)?;
        Ok(body)
    }

    /// For a body that is said to have this size. Little memory is taken on a client's word alone, but whoever has
    /// filled that little is believed.
    fn with_declared(memory: &Budget, declared: usize, spare: usize) -> Result<Self, BodyError> {
        let mut body = Self::with_capacity(memory, declared.min(TRUSTED_LENGTH_MAX) + spare)?;
        body.declared = declared + spare;
        Ok(body)
    }

    /// Makes room for `more` bytes, counting it before it is taken.
    fn reserve(&mut self, more: usize) -> Result<(), BodyError> {
        let needed = self.bytes.len() + more;
        if needed <= self.bytes.capacity() {
            return Ok(());
        }
        let capacity = if needed <= self.declared {
            needed.max(self.declared.min(self.bytes.capacity() * TRUST_GROWTH))
        } else {
            needed.max(self.bytes.capacity() * 2)
        };
        self.share.grow_to(capacity).map_err(|OverBudget| BodyError::Memory)?;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    fn append(&mut self, data: &[u8]) -> Result<(), BodyError> {
        self.reserve(data.len())?;
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// The bytes, no longer counted here: whoever takes them has bounds of its own.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A request's body on its way in.
pub(super) struct InboundBody {
    incoming: Incoming,
    /// The client waits for a "100 Continue", which hyper sends at the first look at the body.
    awaits_continue: bool,
    /// It has been read to its end.
    ended: bool,
    /// Trailers followed its last chunk.
    trailed: bool,
    /// When its head had come.
    began_at: Instant,
}

/// What a first buffer may take on the word of a `Content-Length` alone: an event fits, and it takes ten thousand
/// clients that send a head and nothing else to hold all that bodies may by default.
const TRUSTED_LENGTH_MAX: usize = 4 * 1024;
/// The factor by which a full buffer may grow at once towards the length that its client declared.
const TRUST_GROWTH: usize = 4;

impl InboundBody {
    pub(super) fn new(incoming: Incoming, headers: &HeaderMap, began_at: Instant) -> Self {
        let awaits_continue =
            headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { incoming, awaits_continue, ended: false, trailed: false, began_at }
    }

    /// Reads and decompresses the body, at most `bytes_max` of it. `spare` is the room that the caller wants behind
    /// it, so that nothing is copied later.
    pub(super) async fn read(
        &mut self,
        headers: &HeaderMap,
        bytes_max: usize,
        spare: usize,
        limits: &BodyLimits,
        memory: &Budget,
    ) -> Result<BodyBytes, BodyError> {
        let encoding = Encoding::of(headers)?;
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
            .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > bytes_max) {
            return Err(BodyError::TooLarge(bytes_max));
        }
        let mut body = BodyBytes::with_declared(memory, length.unwrap_or(0), spare)?;
        self.awaits_continue = false;
        let deadline = self.began_at + limits.timeout;
        let mut moved_at = self.began_at;
        while !self.incoming.is_end_stream() {
            let Some(data) = self.next(deadline.min(moved_at + limits.stall_timeout)).await? else { break };
            if body.bytes.len() + data.len() > bytes_max {
                return Err(BodyError::TooLarge(bytes_max));
            }
            body.append(&data)?;
            // Most bodies come in one piece with their head, and need no further look at the clock.
            if !self.incoming.is_end_stream() {
                moved_at = Instant::now();
            }
        }
        match encoding {
            None => Ok(body),
            Some(encoding) => encoding.decode(&body.bytes, bytes_max, spare, memory),
        }
    }

    async fn next(&mut self, deadline: Instant) -> Result<Option<Bytes>, BodyError> {
        loop {
            match timeout_at(deadline, self.incoming.frame()).await {
                Err(_) => return Err(BodyError::Timeout),
                Ok(None) => {
                    self.ended = true;
                    return Ok(None);
                }
                Ok(Some(Err(error))) => return Err(BodyError::Damaged(format!("the body ends early: {error}"))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Ok(Some(data)),
                    // Anything but data is a trailer, which nobody asked for.
                    Err(_) => self.trailed = true,
                },
            }
        }
    }

    /// Whether a proxy may put the end of this body somewhere else. hyper reads all up to an empty line as trailers,
    /// and if a lone line feed stands there, the head of the next request, too. So the connection ends after a body
    /// that had trailers or may still have some.
    pub(super) fn has_doubtful_end(&self) -> bool {
        self.trailed || !self.ended && self.incoming.size_hint().exact().is_none()
    }

    /// What is left of the body when the response is there. A small one that came together with its head is read to its
    /// end here, because it would be hard to tell afterwards when the next head begins.
    pub(super) async fn rest(mut self) -> Rest {
        if !self.has_ended() && !self.awaits_continue {
            // hyper hands out what it holds only after it has been asked for it and has had its turn.
            let _ = self.next(Instant::now()).await;
            tokio::task::yield_now().await;
            let _ = self.next(Instant::now()).await;
        }
        if self.has_ended() { Rest::Read } else { Rest::Unread(self) }
    }

    fn has_ended(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    /// After a response that did not need the rest of the body: reads it and throws it away for a while, so that the
    /// client gets to see the response instead of a reset connection. Returns whether it came to its end.
    pub(super) async fn discard(mut self, limits: &BodyLimits) -> bool {
        // hyper takes what has come with the head, or closes the connection; until then these bytes are no request.
        if self.awaits_continue {
            return false;
        }
        let (deadline, mut discarded) = (Instant::now() + limits.discard_time_max, 0);
        while discarded < limits.discard_bytes_max {
            match self.next(deadline).await {
                Ok(Some(data)) => discarded += data.len(),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        false
    }
}

/// Whether bytes of a request may still come after its response.
pub(super) enum Rest {
    /// No: the next byte begins the next request.
    Read,
    /// Yes: those of this body.
    Unread(InboundBody),
}

/// A `Content-Encoding` that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Gzip,
    Brotli,
    Zstd,
}

/// The largest window that RFC 9659 lets `zstd` on the web ask for: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
const DECODE_CHUNK_BYTES: usize = 16 * 1024;

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Option<Self>, BodyError> {
        let mut found = None;
        for value in headers.get_all(CONTENT_ENCODING) {
            for name in value.to_str().map_err(|_| BodyError::Encoding)?.split(',') {
                let encoding = match name.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => continue,
                    "gzip" | "x-gzip" => Self::Gzip,
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

    fn decode(self, packed: &[u8], bytes_max: usize, spare: usize, memory: &Budget) -> Result<BodyBytes, BodyError> {
        let mut body = BodyBytes::with_capacity(memory, packed.len().saturating_mul(4).min(bytes_max) + spare)?;
        let damaged = |name: &str, error: &io::Error| BodyError::Damaged(format!("not valid {name}: {error}"));
        match self {
            Self::Gzip => unpack(flate2::read::MultiGzDecoder::new(packed), &mut body, bytes_max)?
                .map_err(|error| damaged("gzip", &error)),
            Self::Brotli => {
                unpack(brotli_decompressor::Decompressor::new(packed, DECODE_CHUNK_BYTES), &mut body, bytes_max)?
                    .map_err(|error| damaged("brotli", &error))
            }
            Self::Zstd => zstd::stream::read::Decoder::with_buffer(packed)
                .and_then(|mut decoder| decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map(|()| decoder))
                .map_or_else(|error| Ok(Err(error)), |decoder| unpack(decoder, &mut body, bytes_max))?
                .map_err(|error| damaged("zstd", &error)),
        }?;
        Ok(body)
    }
}

/// Unpacks until the end or the limit, whichever comes first.
fn unpack(mut decoder: impl Read, body: &mut BodyBytes, bytes_max: usize) -> Result<io::Result<()>, BodyError> {
    let mut chunk = [0; DECODE_CHUNK_BYTES];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => return Ok(Ok(())),
            Ok(count) if body.bytes.len() + count > bytes_max => return Err(BodyError::TooLarge(bytes_max)),
            Ok(count) => body.append(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(encoding: Encoding, packed: &[u8], bytes_max: usize, memory_max: usize) -> Result<Vec<u8>, BodyError> {
        let memory = Budget::new(memory_max);
        let body = encoding.decode(packed, bytes_max, 0, &memory).map(BodyBytes::into_bytes);
        assert_eq!(memory.used(), 0, "everything is given back");
        body
    }

    #[test]
    fn a_declared_length_is_believed_little_by_little() {
        let memory = Budget::new(8 << 20);
        let mut body = BodyBytes::with_declared(&memory, 4 << 20, 32).unwrap();
        assert_eq!(memory.used(), TRUSTED_LENGTH_MAX + 32, "on the word alone");
        let mut used = Vec::new();
        for _ in 0..(4 << 20) / 1024 {
            body.append(&[b'x'; 1024]).unwrap();
            used.push(memory.used());
        }
        used.dedup();
        let mut wanted: Vec<_> = (0..5).map(|step| (TRUSTED_LENGTH_MAX + 32) * TRUST_GROWTH.pow(step)).collect();
        wanted.push((4 << 20) + 32);
        assert_eq!(used, wanted);
        assert_eq!(body.into_bytes().len(), 4 << 20);
        assert_eq!(memory.used(), 0);
        // Nobody says how long it is, or it is longer than that.
        let mut body = BodyBytes::with_declared(&memory, 0, 32).unwrap();
        body.append(&[b'x'; 100_000]).unwrap();
        assert_eq!(memory.used(), 100_000);
    }

    #[test]
    fn bodies_are_unpacked_up_to_the_limit() {
        let data = b"event ".repeat(1_000);
        let packed_gzip = gzip(&data);
        let packed_zstd = zstd::encode_all(&data[..], 3).unwrap();
        for (encoding, packed) in [(Encoding::Gzip, &packed_gzip), (Encoding::Zstd, &packed_zstd)] {
            assert_eq!(decode(encoding, packed, 6_000, 1 << 20).unwrap(), data);
            assert_eq!(decode(encoding, packed, 5_999, 1 << 20), Err(BodyError::TooLarge(5_999)));
            assert!(matches!(
                decode(encoding, &packed[..packed.len() / 2], 6_000, 1 << 20),
                Err(BodyError::Damaged(_))
            ));
            assert!(matches!(decode(encoding, b"not packed", 6_000, 1 << 20), Err(BodyError::Damaged(_))));
        }
        assert!(matches!(decode(Encoding::Brotli, b"not packed", 6_000, 1 << 20), Err(BodyError::Damaged(_))));
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_at_the_memory() {
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(decode(Encoding::Gzip, &bomb, 1 << 20, 1 << 30), Err(BodyError::TooLarge(1 << 20)));
        assert_eq!(decode(Encoding::Gzip, &bomb, 1 << 30, 1 << 20), Err(BodyError::Memory));
    }

    #[test]
    fn encodings_by_name() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, value.parse().unwrap());
            }
            Encoding::of(&headers)
        };
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["identity"]), Ok(None));
        assert_eq!(of(&["GZIP"]), Ok(Some(Encoding::Gzip)));
        assert_eq!(of(&["br"]), Ok(Some(Encoding::Brotli)));
        assert_eq!(of(&["zstd"]), Ok(Some(Encoding::Zstd)));
        for refused in [&["deflate"][..], &["gzip, gzip"], &["gzip", "br"], &["\u{ff}"]] {
            assert_eq!(of(refused), Err(BodyError::Encoding), "{refused:?}");
        }
    }
}
