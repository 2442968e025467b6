//! Ids of visitors, made by hitlog: HMAC-SHA-256 (RFC 2104) under the salt of the day, over website, address and user
//! agent; its first 128 bits.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use parking_lot::{Mutex, RwLock};
use rand::RngExt;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{salts::Salts, seen::Seen};
use crate::{
    event::SERVER_ID_BYTES,
    store::{DataDir, Salt, SaltFile},
};

/// Whoever sent a request, as far as an id is made of it.
#[derive(Clone, Copy)]
pub struct Sender<'a> {
    /// Its address, beyond the proxies that are trusted.
    pub address: IpAddr,
    /// Its user agent, as sent; empty where there is none.
    pub agent: &'a [u8],
}

/// Makes ids of visitors.
pub struct VisitorIds {
    salts: RwLock<Salts>,
    seen: Seen,
    kept: Mutex<Kept>,
}

/// The file of the salts, and what it was last told.
struct Kept {
    /// `None` where the file could not be opened: then the salts are in memory only.
    file: Option<SaltFile>,
    /// After how many changes of the salts it was written; `None` if what is in it is not known.
    written_at: Option<u64>,
    has_failed: bool,
}

impl VisitorIds {
    /// Goes on with the salts of a data directory. Remembers at most `seen_max` visitors around the change of a salt.
    pub fn open(directory: &DataDir, seen_max: usize, now_ms: i64) -> Self {
        let (file, kept) = match SaltFile::open(directory.path()) {
            Ok((file, kept)) => (Some(file), kept),
            Err(error) => {
                tracing::warn!(
                    %error, directory = %directory.path().display(),
                    "the file `salts` cannot be opened: until it can, each start makes new ids for visitors whose ids \
                     are left to hitlog, and what is in it stays there. Look who may write it, then start hitlog again"
                );
                (None, Vec::new())
            }
        };
        let ids = Self {
            salts: RwLock::new(Salts::begin(kept, now_ms, new_secret)),
            seen: Seen::new(seen_max),
            kept: Mutex::new(Kept { file, written_at: None, has_failed: false }),
        };
        ids.keep(now_ms);
        ids
    }

    /// The id of a visitor of a website at this time.
    pub fn id(&self, website_id: &str, sender: Sender<'_>, now_ms: i64) -> [u8; SERVER_ID_BYTES] {
        let salts = self.salts_at(now_ms);
        if let Some(previous) = &salts.previous {
            let of_yesterday = digest(previous, website_id, sender);
            if self.seen.note_again(key(of_yesterday), now_ms) {
                return hex(of_yesterday);
            }
        }
        let id = digest(&salts.current, website_id, sender);
        if salts.end_soon(now_ms) {
            self.seen.note(key(id), now_ms);
        }
        hex(id)
    }

    fn salts_at(&self, now_ms: i64) -> Salts {
        let salts = self.salts.read();
        if salts.hold(now_ms) {
            return salts.clone();
        }
        drop(salts);
        let mut salts = self.salts.write();
        salts.turn(now_ms, new_secret);
        salts.clone()
    }

    /// Makes the salts those of this time, forgets those that are over, and writes the file if they have changed. To be
    /// called every few seconds, where a disk may be waited for.
    pub fn keep(&self, now_ms: i64) {
        let salts = self.salts_at(now_ms);
        if salts.previous.is_none() && !salts.end_soon(now_ms) {
            self.seen.clear();
        }
        let mut kept = self.kept.lock();
        if kept.written_at == Some(salts.changes) {
            return;
        }
        let Some(file) = &kept.file else { return };
        match file.write(&salts.all()) {
            Ok(()) => (kept.written_at, kept.has_failed) = (Some(salts.changes), false),
            Err(error) => {
                kept.written_at = None;
                if !std::mem::replace(&mut kept.has_failed, true) {
                    tracing::warn!(
                        %error,
                        "the file `salts` cannot be written: it may hold a salt that is over, and a start would make \
                         new ids for visitors whose ids are left to hitlog. It is tried again; look at the disk"
                    );
                }
            }
        }
    }
}

fn new_secret() -> Zeroizing<[u8; 32]> {
    let mut secret = Zeroizing::new([0; 32]);
    rand::rng().fill(&mut *secret);
    secret
}

/// The first 128 bits of the code.
fn digest(salt: &Salt, website_id: &str, sender: Sender<'_>) -> u128 {
    // A key is filled up to a block with zeros (RFC 2104, section 2).
    let mut block = Zeroizing::new([0; 64]);
    block[..salt.secret.len()].copy_from_slice(&*salt.secret);
    let mut code = Hmac::<Sha256>::new((&*block).into());
    code.update(website_id.as_bytes());
    // No id of a website has it, and an address is of a fixed length: so the borders are always told.
    code.update(&[0]);
    let address = match sender.address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    code.update(&address.octets());
    code.update(sender.agent);
    let code = code.finalize().into_bytes();
    code.iter().take(16).fold(0, |bits, byte| bits << 8 | u128::from(*byte))
}

/// What an id is known by while it is remembered that it was seen.
fn key(id: u128) -> u64 {
    (id >> 64) as u64
}

fn hex(id: u128) -> [u8; SERVER_ID_BYTES] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    std::array::from_fn(|at| DIGITS[(id >> (4 * (SERVER_ID_BYTES - 1 - at))) as usize & 15])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MINUTE: i64 = 60_000;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn directory() -> (tempfile::TempDir, DataDir) {
        let folder = tempfile::tempdir().unwrap();
        let directory = DataDir::open(&folder.path().join("data")).unwrap();
        (folder, directory)
    }

    fn sender<'a>(address: &str, agent: &'a str) -> Sender<'a> {
        Sender { address: address.parse().unwrap(), agent: agent.as_bytes() }
    }

    #[test]
    fn the_code_is_that_of_the_standard() {
        // Made with `openssl dgst -sha256 -mac HMAC` over the same bytes.
        let salt = Salt { day: 0, secret: Zeroizing::new([7; 32]) };
        let id = digest(&salt, "web-1", sender("192.0.2.1", "Agent/1.0"));
        assert_eq!(str::from_utf8(&hex(id)).unwrap(), "3527bd9342df364917d44a85102eb4c4");
    }

    #[test]
    fn an_id_is_of_website_address_agent_and_day() {
        let (_folder, directory) = directory();
        let ids = VisitorIds::open(&directory, 100, 10 * DAY);
        let at = 10 * DAY + 60 * MINUTE;
        let id = ids.id("web-1", sender("192.0.2.1", "A"), at);
        assert_eq!(ids.id("web-1", sender("192.0.2.1", "A"), at + 1), id);
        assert_eq!(ids.id("web-1", sender("::ffff:192.0.2.1", "A"), at), id, "the same address");
        for (website, address, agent, at) in [
            ("web-2", "192.0.2.1", "A", at),
            ("web-1", "192.0.2.2", "A", at),
            ("web-1", "192.0.2.1", "B", at),
            ("web-1", "192.0.2.1", "", at),
            ("web-1", "192.0.2.1", "A", at + DAY),
        ] {
            assert_ne!(ids.id(website, sender(address, agent), at), id, "{website} {address} {agent} {at}");
        }
    }

    #[test]
    fn a_visit_goes_on_over_midnight() {
        let (_folder, directory) = directory();
        let midnight = 11 * DAY;
        let ids = VisitorIds::open(&directory, 2, midnight - 60 * MINUTE);
        let of = |address: &str, at: i64| ids.id("web-1", sender(address, "A"), midnight + at * MINUTE);
        let early = of("192.0.2.1", -31);
        let [late, later] = ["192.0.2.2", "192.0.2.3"].map(|address| of(address, -20));
        let one_too_many = of("192.0.2.4", -19);
        assert_ne!(of("192.0.2.1", 1), early, "it had paused for more than half an hour by then");
        assert_eq!(of("192.0.2.2", 9), late);
        assert_ne!(of("192.0.2.3", 11), later, "this one as well");
        assert_ne!(of("192.0.2.4", 1), one_too_many, "nobody remembered it");
        assert_eq!(of("192.0.2.2", 29), late);
        let new = of("192.0.2.2", 30);
        assert_ne!(new, late, "the salt is gone");
        assert_eq!(of("192.0.2.2", 31), new);
    }

    #[test]
    fn salts_outlast_a_restart_and_not_their_day() {
        let (_folder, directory) = directory();
        let who = sender("192.0.2.1", "A");
        let of = |at: i64| VisitorIds::open(&directory, 100, at).id("web-1", who, at);
        let file = || fs::read(directory.path().join("salts")).unwrap();
        let id = of(10 * DAY);
        assert_eq!(of(10 * DAY + 23 * 60 * MINUTE), id);
        let ids = VisitorIds::open(&directory, 100, 10 * DAY);
        let salt = file()[16..48].to_vec();
        let holds = |salt: &[u8]| file().windows(32).any(|bytes| bytes == salt);
        assert!(holds(&salt));
        // The day before is kept for half an hour, and then it is on no disk.
        ids.keep(11 * DAY);
        assert!(holds(&salt));
        ids.keep(11 * DAY + 30 * MINUTE);
        assert!(!holds(&salt));
        assert_ne!(of(11 * DAY + 31 * MINUTE), id);
    }

    #[test]
    fn without_a_file_there_are_ids_as_well() {
        let (_folder, directory) = directory();
        fs::create_dir(directory.path().join("salts")).unwrap();
        let ids = VisitorIds::open(&directory, 100, 0);
        let id = ids.id("web-1", sender("192.0.2.1", "A"), 1);
        ids.keep(2);
        assert_eq!(ids.id("web-1", sender("192.0.2.1", "A"), 3), id);
    }
}
