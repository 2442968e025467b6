//! The values that events of one piece are filed under, each once, with a number.

use std::borrow::Cow;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    attributes::{Campaign, Page, campaign, cut, page, referrer_host},
    bytes::{Damaged, Reader, put, put_bytes},
    hit::Hit,
};
use crate::event::EventRow;

/// Most values of a dictionary. Of a website that sends another page with every event the rest is told apart no more.
const VALUES_MAX: usize = 250_000;
/// Most bytes of all values of a dictionary.
const TEXT_BYTES_MAX: usize = 24 << 20;

/// What is told apart, and where each kind of it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dictionaries {
    /// Host and path.
    pub(crate) pages: Values,
    /// Names of clicks and custom events.
    pub(crate) names: Values,
    /// Where a page view comes from: see [`Acquisition`].
    pub(crate) acquisitions: Values,
    /// Browser, system and kind of device.
    pub(crate) clients: Values,
    pub(crate) locations: Values,
}

/// Different bytes, numbered from 1 on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    numbers: HashTable<u32>,
    /// Takes however many there are: whoever fills it counts its memory.
    is_unlimited: bool,
}

/// The parts of a value of several parts; an empty one is nothing.
pub(crate) type Fields<'a, const N: usize> = [&'a [u8]; N];
/// The host of the referrer; `source` or `ref`; the five of UTM.
pub(crate) type Acquisition<'a> = Fields<'a, 7>;
/// Browser, system, kind of device.
pub(crate) type Client<'a> = Fields<'a, 3>;

impl Values {
    /// Takes however many there are: whoever fills it counts its memory.
    pub(crate) fn unlimited() -> Self {
        Self { is_unlimited: true, ..Self::default() }
    }

    /// The number of a value, given to it now if it has none; 0 for an empty one.
    pub(crate) fn number(&mut self, value: &[u8]) -> u32 {
        if value.is_empty() {
            return 0;
        }
        let hash = xxh3_64(value);
        let Self { bytes, ends, numbers, is_unlimited } = self;
        if let Some(number) = numbers.find(hash, |number| slice(bytes, ends, *number) == value) {
            return *number;
        }
        let is_full = ends.len() >= VALUES_MAX || bytes.len() + value.len() > TEXT_BYTES_MAX;
        if is_full && (!*is_unlimited || bytes.len() + value.len() > u32::MAX as usize) {
            return Hit::TOO_MANY;
        }
        bytes.extend_from_slice(value);
        ends.push(bytes.len() as u32);
        let number = ends.len() as u32;
        numbers.insert_unique(hash, number, |number| xxh3_64(slice(bytes, ends, *number)));
        number
    }

    /// The number of a value that has one; not of values that were read.
    pub(crate) fn find(&self, value: &[u8]) -> Option<u32> {
        if value.is_empty() {
            return Some(0);
        }
        self.numbers.find(xxh3_64(value), |number| slice(&self.bytes, &self.ends, *number) == value).copied()
    }

    /// The value with this number; empty for 0, and for one that there was no room for.
    pub(crate) fn get(&self, number: u32) -> &[u8] {
        if number == 0 || number as usize > self.ends.len() { &[] } else { slice(&self.bytes, &self.ends, number) }
    }

    /// How many there are: the highest number.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The memory that they take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * 4 + self.numbers.capacity() * 5
    }

    fn write(&self, out: &mut Vec<u8>) {
        put(out, self.ends.len() as u64);
        (1..=self.ends.len() as u32).for_each(|number| put_bytes(out, self.get(number)));
    }

    /// Reads what [`write`](Self::write) has written. Nothing can be added to it: it only tells a number's value.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Damaged> {
        let mut values = Self::default();
        for _ in 0..reader.number()? {
            values.bytes.extend_from_slice(reader.bytes()?);
            values.ends.push(u32::try_from(values.bytes.len()).map_err(|_| Damaged)?);
        }
        Ok(values)
    }
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let at = number as usize - 1;
    let begin = if at == 0 { 0 } else { ends[at - 1] as usize };
    &bytes[begin..ends[at] as usize]
}

/// Writes parts as one value: empty if all of them are.
pub(crate) fn join_fields<const N: usize>(fields: Fields<'_, N>, out: &mut Vec<u8>) {
    out.clear();
    if fields.iter().any(|field| !field.is_empty()) {
        fields.iter().for_each(|field| put_bytes(out, field));
    }
}

/// The parts of a value.
pub(crate) fn fields<const N: usize>(value: &[u8]) -> Result<Fields<'_, N>, Damaged> {
    let mut fields = [&[][..]; N];
    if !value.is_empty() {
        let mut reader = Reader(value);
        for field in &mut fields {
            *field = reader.bytes()?;
        }
        reader.end()?;
    }
    Ok(fields)
}

impl Dictionaries {
    /// Of what other pieces have told apart, all of which must stay so.
    pub(crate) fn unlimited() -> Self {
        let [pages, names, acquisitions, clients, locations] = std::array::from_fn(|_| Values::unlimited());
        Self { pages, names, acquisitions, clients, locations }
    }

    /// Numbers what an event is filed under, but for its name, and puts it into the hit.
    pub(crate) fn file(&mut self, row: &EventRow<'_>, name: &[u8], hit: &mut Hit, scratch: &mut Vec<u8>) {
        let Page { host, path } = page(row.url);
        join_fields([&host, &path], scratch);
        hit.page = self.pages.number(scratch);
        hit.name = self.names.number(name);
        let referrer = row.referrer.map_or(Cow::default(), referrer_host);
        let Campaign { utm: [source, medium, campaign, content, term], source: named } = campaign(row.url);
        join_fields([&referrer, &named, &source, &medium, &campaign, &content, &term], scratch);
        hit.acquisition = self.acquisitions.number(scratch);
        let [browser, os, device] = [row.browser, row.os, row.device_type].map(|part| cut(part.unwrap_or_default()));
        join_fields([browser, os, device], scratch);
        hit.client = self.clients.number(scratch);
        hit.location = self.locations.number(cut(row.location.unwrap_or_default()));
    }

    /// Files a hit of another piece here; `before` is another one and what became of it, with which it may share much.
    pub(crate) fn translate(&mut self, from: &Self, mut hit: Hit, before: Option<(Hit, Hit)>) -> Hit {
        let number = |to: &mut Values, from: &Values, field: fn(&mut Hit) -> &mut u32, hit: &mut Hit| {
            let number = *field(hit);
            let known = before.and_then(|(mut of, mut to)| (*field(&mut of) == number).then(|| *field(&mut to)));
            *field(hit) = match known {
                _ if number == Hit::TOO_MANY => number,
                Some(known) => known,
                None => to.number(from.get(number)),
            };
        };
        number(&mut self.pages, &from.pages, |hit| &mut hit.page, &mut hit);
        number(&mut self.names, &from.names, |hit| &mut hit.name, &mut hit);
        number(&mut self.acquisitions, &from.acquisitions, |hit| &mut hit.acquisition, &mut hit);
        number(&mut self.clients, &from.clients, |hit| &mut hit.client, &mut hit);
        number(&mut self.locations, &from.locations, |hit| &mut hit.location, &mut hit);
        hit
    }

    /// The memory that they take, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.all().map(Values::memory_bytes).iter().sum()
    }

    /// All of them, in the order in which they are written.
    pub(crate) fn all(&self) -> [&Values; 5] {
        [&self.pages, &self.names, &self.acquisitions, &self.clients, &self.locations]
    }

    /// All of them as bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.all().iter().for_each(|values| values.write(&mut bytes));
        bytes
    }

    /// Reads what [`write`](Self::write) has written.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut reader = Reader(bytes);
        // In the order in which they are written.
        let dictionaries = Self {
            pages: Values::read(&mut reader)?,
            names: Values::read(&mut reader)?,
            acquisitions: Values::read(&mut reader)?,
            clients: Values::read(&mut reader)?,
            locations: Values::read(&mut reader)?,
        };
        reader.end()?;
        for number in 1..=dictionaries.pages.len() as u32 {
            fields::<2>(dictionaries.pages.get(number))?;
        }
        Ok(dictionaries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_number_until_there_are_too_many() {
        let mut values = Values::default();
        assert_eq!((values.number(b""), values.number(b"a"), values.number(b"b"), values.number(b"a")), (0, 1, 2, 1));
        assert_eq!((values.get(0), values.get(2), values.get(9)), (&b""[..], &b"b"[..], &b""[..]));
        (2..VALUES_MAX).for_each(|at| assert_eq!(values.number(&at.to_le_bytes()) as usize, at + 1));
        assert_eq!((values.number(b"c"), values.number(b"b"), values.len()), (Hit::TOO_MANY, 2, VALUES_MAX));
        let mut long = Values::default();
        let text = vec![7; TEXT_BYTES_MAX / 2];
        assert_eq!((long.number(&text), long.number(&text[1..]), long.number(b"123")), (1, 2, Hit::TOO_MANY));
    }

    #[test]
    fn what_is_written_is_read() {
        let mut dictionaries = Dictionaries::default();
        let mut value = Vec::new();
        join_fields([b"example.com", b"/a"], &mut value);
        dictionaries.pages.number(&value);
        dictionaries.locations.number(b"Berlin");
        let bytes = dictionaries.write();
        let read = Dictionaries::read(&bytes).unwrap();
        assert_eq!(fields(read.pages.get(1)).unwrap(), [&b"example.com"[..], b"/a"]);
        assert_eq!((read.locations.get(1), read.names.len()), (&b"Berlin"[..], 0));
        assert!(Dictionaries::read(&bytes[..bytes.len() - 1]).is_err());
        assert!(Dictionaries::read(&[bytes, vec![0]].concat()).is_err());
        join_fields([b"", b"", b""], &mut value);
        assert!(value.is_empty());
        assert_eq!(fields(&value), Ok([&b""[..]; 3]));
    }
}
