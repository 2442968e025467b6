//! A database of countries in MaxMind's format, <https://maxmind.github.io/MaxMind-DB/>, as small as it can be.

use std::net::Ipv4Addr;

/// What a node's side leads to.
#[derive(Clone, Copy)]
enum Side {
    Nothing,
    Node(usize),
    /// So many bytes into the data.
    Data(usize),
}

/// A database of these networks of IPv4, each with its country.
pub(super) fn database(countries: &[(&str, &str)]) -> Vec<u8> {
    let mut nodes = vec![[Side::Nothing; 2]];
    let mut data = Vec::new();
    for (network, country) in countries {
        let (address, bits) = network.split_once('/').unwrap();
        let address = u32::from(address.parse::<Ipv4Addr>().unwrap());
        let bits: u32 = bits.parse().unwrap();
        let at = data.len();
        map(&mut data, 1);
        text(&mut data, "country");
        map(&mut data, 1);
        text(&mut data, "iso_code");
        text(&mut data, country);
        let mut node = 0;
        for bit in 0..bits {
            let side = (address >> (31 - bit) & 1) as usize;
            if bit + 1 == bits {
                nodes[node][side] = Side::Data(at);
                break;
            }
            node = if let Side::Node(next) = nodes[node][side] {
                next
            } else {
                nodes.push([Side::Nothing; 2]);
                nodes[node][side] = Side::Node(nodes.len() - 1);
                nodes.len() - 1
            };
        }
    }
    let mut out = Vec::new();
    for side in nodes.as_flattened() {
        let record = match side {
            Side::Nothing => nodes.len(),
            Side::Node(node) => *node,
            // Between the tree and the data there are 16 bytes.
            Side::Data(at) => nodes.len() + 16 + at,
        };
        out.extend_from_slice(&(record as u32).to_be_bytes()[1..]);
    }
    out.extend_from_slice(&[0; 16]);
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    metadata(&mut out, nodes.len());
    out
}

fn metadata(out: &mut Vec<u8>, nodes: usize) {
    map(out, 9);
    text(out, "node_count");
    out.extend_from_slice(&[0b110_00100]);
    out.extend_from_slice(&(nodes as u32).to_be_bytes());
    for (name, value) in
        [("record_size", 24), ("ip_version", 4), ("binary_format_major_version", 2), ("binary_format_minor_version", 0)]
    {
        text(out, name);
        out.extend_from_slice(&[0b101_00010, 0, value]);
    }
    text(out, "database_type");
    text(out, "Test-Country");
    text(out, "languages");
    // An array of none, which is an extended type: 11.
    out.extend_from_slice(&[0, 4]);
    text(out, "build_epoch");
    // 64 bits, which is an extended type: 9.
    out.extend_from_slice(&[4, 2]);
    out.extend_from_slice(&1_764_000_000_u32.to_be_bytes());
    text(out, "description");
    map(out, 0);
}

fn map(out: &mut Vec<u8>, members: u8) {
    out.push(0b111_00000 | members);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(0b010_00000 | u8::try_from(text.len()).unwrap());
    out.extend_from_slice(text.as_bytes());
}
