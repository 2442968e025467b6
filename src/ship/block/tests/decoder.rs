//! Reads a block back, as far as this room's own blocks go.

/// An event as a block has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) site: Vec<u8>,
    pub(super) kind: u8,
    pub(super) created_at: i64,
    pub(super) received_at: i64,
    pub(super) node: u32,
    pub(super) seq: u64,
    /// `visitor`, `session`, `url` and `properties`.
    pub(super) texts: [Vec<u8>; 4],
    /// `referrer` to `location`.
    pub(super) words: [Vec<u8>; 5],
    pub(super) flags: u8,
}

/// The rows of a block. Fails where something else stands in it.
pub(super) fn decode(block: &[u8]) -> Vec<Decoded> {
    let mut rest = Rest(block);
    assert_eq!(rest.varuint(), 16);
    let rows = rest.varuint();
    const KIND: &str = "Enum8('pageview' = 1, 'click' = 2, 'custom' = 3)";
    const TIME: &str = "DateTime64(3, 'UTC')";
    let site = rest.dictionary("site", rows);
    let kind = rest.fixed("type", KIND, rows, u8::from_le_bytes);
    let created_at = rest.fixed("created_at", TIME, rows, i64::from_le_bytes);
    let received_at = rest.fixed("received_at", TIME, rows, i64::from_le_bytes);
    let node = rest.fixed("node", "UInt32", rows, u32::from_le_bytes);
    let seq = rest.fixed("seq", "UInt64", rows, u64::from_le_bytes);
    let texts = ["visitor", "session", "url", "properties"].map(|name| rest.texts(name, rows));
    let words = ["referrer", "device", "browser", "os", "location"].map(|name| rest.dictionary(name, rows));
    let flags = rest.fixed("flags", "UInt8", rows, u8::from_le_bytes);
    assert!(rest.0.is_empty(), "{} bytes too many", rest.0.len());
    let row = |at: usize| Decoded {
        site: site[at].clone(),
        kind: kind[at],
        created_at: created_at[at],
        received_at: received_at[at],
        node: node[at],
        seq: seq[at],
        texts: texts.each_ref().map(|column| column[at].clone()),
        words: words.each_ref().map(|column| column[at].clone()),
        flags: flags[at],
    };
    (0..rows).map(row).collect()
}

/// What is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take(&mut self, bytes: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(bytes);
        self.0 = rest;
        taken
    }

    fn array<const SIZE: usize>(&mut self) -> [u8; SIZE] {
        self.take(SIZE).try_into().unwrap()
    }

    fn varuint(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let [byte] = self.array();
            number |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn text(&mut self) -> Vec<u8> {
        let len = self.varuint();
        self.take(len).to_vec()
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn head(&mut self, name: &str, kind: &str) {
        assert_eq!((self.text(), self.text()), (name.into(), kind.into()));
    }

    fn fixed<const SIZE: usize, T>(
        &mut self,
        name: &str,
        kind: &str,
        rows: usize,
        value: fn([u8; SIZE]) -> T,
    ) -> Vec<T> {
        self.head(name, kind);
        (0..rows).map(|_| value(self.array())).collect()
    }

    fn texts(&mut self, name: &str, rows: usize) -> Vec<Vec<u8>> {
        self.head(name, "String");
        (0..rows).map(|_| self.text()).collect()
    }

    fn dictionary(&mut self, name: &str, rows: usize) -> Vec<Vec<u8>> {
        self.head(name, "LowCardinality(String)");
        assert_eq!(self.number(), 1, "version");
        let kind = self.number();
        let keys: Vec<_> = (0..self.number()).map(|_| self.text()).collect();
        assert_eq!(self.number(), rows as u64);
        let index = |rest: &mut Self| match kind {
            0x600 => usize::from(u8::from_le_bytes(rest.array())),
            0x601 => usize::from(u16::from_le_bytes(rest.array())),
            0x602 => u32::from_le_bytes(rest.array()) as usize,
            other => panic!("indexes of kind {other:x}"),
        };
        (0..rows).map(|_| keys[index(self)].clone()).collect()
    }
}
