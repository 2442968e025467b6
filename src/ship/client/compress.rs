//! Packs the body of a request.

use std::io::{self, Write};

use bytes::Bytes;
use zstd::stream::write::Encoder;

/// The fastest: a block becomes a seventh, and the next levels win little more.
const LEVEL: i32 = 1;

/// The pieces as one body in zstd, for `Content-Encoding: zstd`. Besides the result it takes at most 2 MiB, which is
/// what zstd needs at this level.
pub fn compress(pieces: &[Bytes]) -> io::Result<Bytes> {
    let len: usize = pieces.iter().map(Bytes::len).sum();
    let mut encoder = Encoder::new(Vec::with_capacity(len / 6), LEVEL)?;
    encoder.set_pledged_src_size(Some(len as u64))?;
    for piece in pieces {
        encoder.write_all(piece)?;
    }
    encoder.finish().map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_one_body() {
        let long = Bytes::from("event ".repeat(100_000));
        for pieces in [vec![], vec![Bytes::from("a")], vec![Bytes::from("a"), Bytes::new(), long.clone(), long]] {
            let packed = compress(&pieces).unwrap();
            assert_eq!(zstd::decode_all(&*packed).unwrap(), pieces.concat());
            assert!(packed.len() <= 32 + pieces.concat().len() / 100, "{}", packed.len());
        }
    }
}
