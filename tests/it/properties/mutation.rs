//! Damage to bytes, and the words that it likes to put in.

use proptest::{prelude::*, sample::Index};

/// What JSON may trip over.
pub const JSON_TOKENS: &[&[u8]] = &[
    b"\\ud800",
    b"\\udc00",
    b"\\ud83d\\ude00",
    b"\\u0000",
    b"\\u007f",
    b"\\\"",
    b"\\x",
    b"\\",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\xaf",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\x7f",
    b"\x0c",
    b"\r\n",
    b"1e999",
    b"-1e999",
    b"1e-999",
    b"-0",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"NaN",
    b"Infinity",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"00000000000000000000000000000000",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\"",
    b"{}",
    b"[]",
    b",{}",
    b"null",
    b"true",
    b"tru",
    b"'",
    b"/**/",
    b"\"url\":1,",
    b"\"\":",
    b"\"events\":[],",
    b"[[[[[[[[[[[[[[[[",
    b"]]]]]]]]]]]]]]]]",
    b"{\"a\":{\"a\":{\"a\":",
    b"                                                                ",
];

/// What the head of a request, or chunks of a body, may trip over.
pub const HTTP_TOKENS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b"\0",
    b"\xff",
    b"%",
    b"%00",
    b"#",
    b"?",
    b"*",
    b",",
    b";",
    b" HTTP/1.1",
    b" HTTP/1.0\r\n",
    b"HTTP/2.0",
    b"HEAD ",
    b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    b"CONNECT a:1 ",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\r\nhost: b",
    b"\r\ncontent-length: 0",
    b"\r\ncontent-length: 1",
    b"\r\ncontent-length: 18446744073709551615",
    b"\r\ntransfer-encoding: chunked",
    b"\r\ntransfer-encoding: x",
    b"\r\nexpect: 100-continue",
    b"\r\nconnection: close",
    b"\r\nconnection: keep-alive",
    b"\r\nupgrade: h2c",
    b"\r\ncontent-encoding: gzip",
    b"\r\n folded",
    b"0\r\n\r\n",
    b"1\r\n",
    b"ffffffffffffffff\r\n",
    b"\r\nx: ",
];

/// What a query string may trip over.
pub const QUERY_TOKENS: &[&[u8]] = &[
    b"%",
    b"%4",
    b"%zz",
    b"%00",
    b"%0a",
    b"%ff",
    b"%C3%A9",
    b"%ed%a0%80",
    b"%26",
    b"%3d",
    b"+",
    b"%2B",
    b"&",
    b"&&",
    b"=",
    b"==",
    b";",
    b"?",
    b"/",
    b"'",
    b"\"",
    b"\\",
    b"[]",
    b"limit=",
    b"&offset=0",
    b"&cursor=",
    b"&to=0",
    b"&from=",
    b"99999999999999999999",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-",
    b"0",
    b".",
    b"\xff",
    b"\xc3\xa9",
];

/// One piece of damage. Places and lengths are of whatever length the bytes have then.
#[derive(Debug, Clone)]
pub enum Mutation {
    Flip(Index, u8),
    Insert(Index, Token),
    Overwrite(Index, Token),
    Delete(Index, usize),
    Copy { from: Index, to: Index, len: usize },
    Swap(Index, Index, usize),
    Cut(Index),
}

/// Bytes that read as text when they are printed.
#[derive(Clone)]
pub struct Token(pub Vec<u8>);

impl std::fmt::Debug for Token {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "\"{}\"", self.0.escape_ascii())
    }
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // A place may be the end; a range ends there at the latest.
        let place = |index: &Index| index.index(bytes.len() + 1);
        let range = |index: &Index, len: usize| place(index)..(place(index) + len).min(bytes.len());
        match self {
            Self::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, token) => drop(bytes.splice(place(at)..place(at), token.0.iter().copied())),
            Self::Overwrite(at, token) => drop(bytes.splice(range(at, token.0.len()), token.0.iter().copied())),
            Self::Delete(at, len) => drop(bytes.drain(range(at, *len))),
            Self::Copy { from, to, len } => {
                let copied = bytes[range(from, *len)].to_vec();
                bytes.splice(place(to)..place(to), copied);
            }
            Self::Swap(first, second, len) => {
                let (first, second) = (range(first, *len), range(second, *len));
                for (left, right) in first.zip(second) {
                    bytes.swap(left, right);
                }
            }
            Self::Cut(at) => bytes.truncate(place(at)),
        }
    }
}

/// The bytes with the damage done to them.
pub fn damaged(bytes: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for mutation in mutations {
        mutation.apply(&mut bytes);
    }
    bytes
}

/// No damage half of the time, otherwise some.
pub fn mutations(tokens: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<Mutation>> + Clone {
    let token = prop_oneof![
        4 => prop::sample::select(tokens).prop_map(|token| Token(token.to_vec())),
        1 => any::<u8>().prop_map(|byte| Token(vec![byte])),
        1 => (any::<u8>(), 1..200_usize).prop_map(|(byte, count)| Token(vec![byte; count])),
    ];
    let index = any::<Index>;
    let len = prop_oneof![3 => 1..4_usize, 1 => 1..80_usize];
    let one = prop_oneof![
        (index(), prop_oneof![(0..8_u32).prop_map(|bit| 1 << bit), 1..=255_u8])
            .prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (index(), token.clone()).prop_map(|(at, token)| Mutation::Insert(at, token)),
        (index(), token).prop_map(|(at, token)| Mutation::Overwrite(at, token)),
        (index(), len.clone()).prop_map(|(at, len)| Mutation::Delete(at, len)),
        (index(), index(), len.clone()).prop_map(|(from, to, len)| Mutation::Copy { from, to, len }),
        (index(), index(), len).prop_map(|(first, second, len)| Mutation::Swap(first, second, len)),
        index().prop_map(Mutation::Cut),
    ];
    prop_oneof![
        4 => Just(Vec::new()),
        3 => one.clone().prop_map(|mutation| vec![mutation]),
        1 => prop::collection::vec(one, 2..6),
    ]
    .boxed()
}
