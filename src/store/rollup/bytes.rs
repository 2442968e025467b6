//! Numbers as few bytes: 7 bits in each, the low ones first, and a high bit where more follow.

use std::cell::RefCell;

use zstd::bulk::Decompressor;

/// Bytes that are not what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("its numbers are not what was written")]
pub(crate) struct Damaged;

/// Writes a number.
pub(crate) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Writes a number that may be below 0.
pub(crate) fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, (number << 1 ^ number >> 63).cast_unsigned());
}

/// Writes bytes, their number first.
pub(crate) fn put_bytes(bytes: &mut Vec<u8>, these: &[u8]) {
    put(bytes, these.len() as u64);
    bytes.extend_from_slice(these);
}

/// Reads what was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// A number.
    pub(crate) fn number(&mut self) -> Result<u64, Damaged> {
        let (&first, mut rest) = self.0.split_first().ok_or(Damaged)?;
        let mut number = u64::from(first & 0x7f);
        let (mut byte, mut shift) = (first, 7);
        while byte & 0x80 != 0 {
            let (&next, after) = rest.split_first().ok_or(Damaged)?;
            if shift > 63 {
                return Err(Damaged);
            }
            number |= u64::from(next & 0x7f) << shift;
            (byte, rest, shift) = (next, after, shift + 7);
        }
        self.0 = rest;
        Ok(number)
    }

    /// A number of at most 32 bits.
    pub(crate) fn small(&mut self) -> Result<u32, Damaged> {
        u32::try_from(self.number()?).map_err(|_| Damaged)
    }

    /// A number that may be below 0.
    pub(crate) fn signed(&mut self) -> Result<i64, Damaged> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -((number & 1).cast_signed()))
    }

    /// Goes past so many numbers.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Damaged> {
        const WORD: usize = size_of::<u64>();
        let (mut left, mut rest) = (count, self.0);
        // Every number ends in a byte without the high bit: eight bytes are looked at at once.
        while let Some((word, after)) = rest.split_first_chunk::<WORD>().filter(|_| left >= WORD) {
            left -= (!u64::from_le_bytes(*word) & 0x8080_8080_8080_8080).count_ones() as usize;
            rest = after;
        }
        while left > 0 {
            let (byte, after) = rest.split_first().ok_or(Damaged)?;
            left -= usize::from(byte & 0x80 == 0);
            rest = after;
        }
        self.0 = rest;
        Ok(())
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Damaged> {
        let (these, rest) = self.0.split_at_checked(count).ok_or(Damaged)?;
        self.0 = rest;
        Ok(these)
    }

    /// Bytes behind their number.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let count = self.number()?;
        self.take(usize::try_from(count).map_err(|_| Damaged)?)
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// Most bytes that a packed part may unpack to: far more than any part of a segment of the largest size has.
const UNPACKED_MAX: usize = 1 << 32;

/// Packs bytes: fast, as a seal waits for it.
pub(crate) fn pack(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packed = Vec::with_capacity(bytes.len() / 2 + 16);
    put(&mut packed, bytes.len() as u64);
    packed.extend_from_slice(&zstd::bulk::compress(bytes, -1)?);
    Ok(packed)
}

thread_local! {
    /// Kept for the next part: to make one takes as long as to unpack some of them.
    static UNPACKER: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Unpacks what [`pack`] has packed.
pub(crate) fn unpack(packed: &[u8]) -> Result<Vec<u8>, Damaged> {
    let mut reader = Reader(packed);
    let bytes = usize::try_from(reader.number()?).map_err(|_| Damaged)?;
    if bytes > UNPACKED_MAX {
        return Err(Damaged);
    }
    let unpacked = UNPACKER.with_borrow_mut(|unpacker| {
        if unpacker.is_none() {
            *unpacker = Some(Decompressor::new().map_err(|_| Damaged)?);
        }
        unpacker.as_mut().map_or(Err(Damaged), |unpacker| unpacker.decompress(reader.0, bytes).map_err(|_| Damaged))
    })?;
    if unpacked.len() == bytes { Ok(unpacked) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), i64::MAX.cast_unsigned(), u64::MAX];
        let mut bytes = Vec::new();
        for number in numbers {
            put(&mut bytes, number);
            put_signed(&mut bytes, number.cast_signed());
            put_signed(&mut bytes, number.cast_signed().wrapping_neg());
        }
        put_bytes(&mut bytes, b"text");
        let packed = pack(&bytes).unwrap();
        assert_eq!(unpack(&packed).unwrap(), bytes);
        assert_eq!(unpack(&packed[..packed.len() - 1]), Err(Damaged));
        let mut reader = Reader(&bytes);
        for number in numbers {
            assert_eq!(reader.number(), Ok(number));
            assert_eq!(reader.signed(), Ok(number.cast_signed()));
            assert_eq!(reader.signed(), Ok(number.cast_signed().wrapping_neg()));
        }
        assert_eq!(reader.end(), Err(Damaged));
        assert_eq!(reader.bytes(), Ok(&b"text"[..]));
        assert_eq!((reader.end(), reader.number()), (Ok(()), Err(Damaged)));
        let mut reader = Reader(&bytes);
        assert_eq!((reader.skip(3 * numbers.len()), reader.skip(0)), (Ok(()), Ok(())));
        assert_eq!((reader.bytes(), reader.skip(1)), (Ok(&b"text"[..]), Err(Damaged)));
        assert_eq!(Reader(&[0xff; 20]).number(), Err(Damaged));
        assert_eq!(Reader(&[0xff, 0xff, 0xff, 0xff, 0xff, 1]).small(), Err(Damaged));
        assert_eq!(Reader(&[5, 1]).bytes(), Err(Damaged));
    }
}
