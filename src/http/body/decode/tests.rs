//! What is taken, what is refused, and that everything is given back.

use std::io::Write;

use super::*;
use crate::http::{connections::Connections, options::ConnectionLimits};

/// The same text in an encoding.
fn packed(encoding: Encoding, data: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Deflate => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Zstd => zstd::encode_all(data, 3).unwrap(),
        Encoding::Brotli => {
            let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4_096, 5, 22);
            encoder.write_all(data).unwrap();
            encoder.into_inner()
        }
    }
}

const ALL: [Encoding; 4] = [Encoding::Gzip, Encoding::Deflate, Encoding::Brotli, Encoding::Zstd];

async fn decode_with(
    encoding: Encoding,
    sent: &[u8],
    bytes_max: usize,
    memory_max: usize,
) -> Result<Vec<u8>, BodyError> {
    let connections = Connections::new(ConnectionLimits::OF_TESTS, Vec::new());
    let memory = SharedMemory::of_bodies(memory_max, memory_max / 4, &connections);
    let (heavy, threads) = Heavy::spawn(1).unwrap();
    let slots = UnpackSlots::new(1 << 20, bytes_max);
    let mut body = BodyBytes::new(&memory, sent.len());
    body.append(sent)?;
    let unpacked = unpack(encoding, body, (bytes_max, 32), &memory, (&heavy, &slots)).await;
    let unpacked = unpacked.map(|body| {
        let (bytes, _held) = body.into_parts();
        assert!(bytes.capacity() >= bytes.len() + 32 || bytes.is_empty(), "room for whoever reads it");
        bytes
    });
    drop(heavy);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(memory.used(), 0, "everything is given back");
    unpacked
}

async fn decode(encoding: Encoding, sent: &[u8], bytes_max: usize) -> Result<Vec<u8>, BodyError> {
    decode_with(encoding, sent, bytes_max, 64 << 20).await
}

/// Text that cannot be packed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[tokio::test]
async fn bodies_are_unpacked_up_to_the_limit() {
    for (data, name) in
        [(b"event ".repeat(1_000), "small"), (b"event ".repeat(100_000), "large"), (noise(300_000), "noise")]
    {
        for encoding in ALL {
            let sent = packed(encoding, &data);
            assert!(sent.len() <= packed_bytes_max(data.len()), "{encoding:?} {name}");
            assert_eq!(decode(encoding, &sent, data.len()).await.unwrap(), data, "{encoding:?} {name}");
            let short = decode(encoding, &sent, data.len() - 1).await;
            assert_eq!(short, Err(BodyError::TooLarge(data.len() - 1)), "{encoding:?} {name}");
            let half = decode(encoding, &sent[..sent.len() / 2], data.len()).await;
            assert!(matches!(half, Err(BodyError::Damaged(_))), "{encoding:?} {name}: {half:?}");
            let trailed = decode(encoding, &[&sent[..], b"more"].concat(), data.len()).await;
            assert!(matches!(trailed, Err(BodyError::Damaged(_))), "{encoding:?} {name}");
        }
    }
    for encoding in ALL {
        assert!(
            matches!(decode(encoding, b"{\"not\":\"packed\"}", 6_000).await, Err(BodyError::Damaged(_))),
            "{encoding:?}"
        );
    }
}

#[tokio::test]
async fn what_old_clients_call_deflate_is_taken_too() {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"{\"a\":1}").unwrap();
    assert_eq!(decode(Encoding::Deflate, &encoder.finish().unwrap(), 100).await.unwrap(), b"{\"a\":1}");
}

#[tokio::test]
async fn members_and_frames_follow_one_another() {
    for encoding in [Encoding::Gzip, Encoding::Zstd] {
        let sent = [packed(encoding, b"{\"a\":"), packed(encoding, b"1}")].concat();
        assert_eq!(decode(encoding, &sent, 100).await.unwrap(), b"{\"a\":1}");
    }
}

#[tokio::test]
async fn a_bomb_stops_at_the_limit_and_at_the_memory() {
    for encoding in ALL {
        let bomb = packed(encoding, &vec![0; 32 << 20]);
        assert_eq!(decode(encoding, &bomb, 1 << 20).await, Err(BodyError::TooLarge(1 << 20)), "{encoding:?}");
        assert_eq!(decode_with(encoding, &bomb, 1 << 30, 4 << 20).await, Err(BodyError::Memory), "{encoding:?}");
    }
}

#[tokio::test]
async fn what_brings_nothing_ends_early() {
    // A block of stored data that is empty: five bytes.
    let mut empty_blocks = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    empty_blocks.extend([0, 0, 0, 0xff, 0xff].repeat(800_000));
    // A frame that zstd skips.
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 0xff, 0, 0, 0][..], &[0; 255]].concat().repeat(16_000);
    for (encoding, sent) in [
        (Encoding::Gzip, packed(Encoding::Gzip, b"").repeat(200_000)),
        (Encoding::Gzip, empty_blocks.clone()),
        (Encoding::Deflate, empty_blocks[10..].to_vec()),
        (Encoding::Zstd, packed(Encoding::Zstd, b"").repeat(300_000)),
        (Encoding::Zstd, skipped),
    ] {
        let refused = decode(encoding, &sent, 4 << 20).await;
        assert!(
            matches!(&refused, Err(BodyError::Damaged(why)) if why.contains("larger")),
            "{encoding:?}: {refused:?}"
        );
    }
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
    assert_eq!(of(&["deflate, identity"]), Ok(Some(Encoding::Deflate)));
    assert_eq!(of(&["br"]), Ok(Some(Encoding::Brotli)));
    assert_eq!(of(&["zstd"]), Ok(Some(Encoding::Zstd)));
    for refused in [&["compress"][..], &["gzip, gzip"], &["gzip", "br"], &["\u{ff}"]] {
        assert_eq!(of(refused), Err(BodyError::Encoding), "{refused:?}");
    }
}
