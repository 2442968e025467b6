//! What browsers are given: the tracker, as plain files that are served as they are.
//!
//! `tracker.js` is the source. What is served is made of it by `scripts/tracker`, and committed: nothing is built when
//! hitlog is. Knows nobody.

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256, Sha384};

/// A file, in each coding that it is sent in.
pub struct Asset {
    /// Its path.
    pub path: &'static str,
    /// Its `Content-Type`.
    pub content_type: &'static str,
    /// Whether what is at this path never changes.
    pub is_frozen: bool,
    /// The bytes.
    pub plain: &'static [u8],
    /// The bytes by gzip, where that is worth it.
    pub gzip: Option<&'static [u8]>,
    /// The bytes by brotli, where that is worth it.
    pub brotli: Option<&'static [u8]>,
    tag: LazyLock<String>,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `src/web`, and those that `scripts/tracker` has packed beside it.
macro_rules! packed {
    ($path:literal, $is_frozen:literal, $file:literal) => {
        Asset {
            path: $path,
            content_type: JAVASCRIPT,
            is_frozen: $is_frozen,
            plain: include_bytes!(concat!("web/", $file)),
            gzip: Some(include_bytes!(concat!("web/", $file, ".gz"))),
            brotli: Some(include_bytes!(concat!("web/", $file, ".br"))),
            tag: LazyLock::new(|| tag(include_bytes!(concat!("web/", $file)))),
        }
    };
}

/// The tracker, as of this hitlog.
pub static TRACKER: Asset = packed!("/tracker.js", false, "tracker.min.js");

/// The first tracker, which never changes: pages may name its integrity.
pub static TRACKER_V1: Asset = packed!("/tracker.v1.js", true, "tracker.v1.js");

/// The tracker as a module.
pub static TRACKER_MODULE: Asset = packed!("/tracker.mjs", false, "tracker.mjs");

/// The types of the module, for TypeScript.
pub static TRACKER_TYPES: Asset = Asset {
    path: "/tracker.d.ts",
    content_type: "text/plain; charset=utf-8",
    is_frozen: false,
    plain: include_bytes!("web/tracker.d.ts"),
    gzip: None,
    brotli: None,
    tag: LazyLock::new(|| tag(include_bytes!("web/tracker.d.ts"))),
};

/// Where a page without JavaScript sends its views.
pub const PIXEL_PATH: &str = "/pixel.gif";

impl Asset {
    /// What its `ETag` is made of: another one for other bytes.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Its integrity, <https://www.w3.org/TR/SRI/>: what a page names so that nothing else is run in its place.
    pub fn integrity(&self) -> String {
        format!("sha384-{}", BASE64_STANDARD.encode(Sha384::digest(self.plain)))
    }
}

fn tag(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(&Sha256::digest(bytes)[..12])
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    /// The most that the tracker may take on its way, in bytes.
    const TRACKER_GZIP_BYTES_MAX: usize = 2_300;

    #[test]
    fn what_is_packed_is_the_file() {
        for asset in [&TRACKER, &TRACKER_V1, &TRACKER_MODULE, &TRACKER_TYPES] {
            if let Some(packed) = asset.gzip {
                let mut bytes = Vec::new();
                GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
                assert!(bytes == asset.plain, "{}: run scripts/tracker", asset.path);
            }
            if let Some(packed) = asset.brotli {
                let mut bytes = Vec::new();
                brotli::Decompressor::new(packed, 4_096).read_to_end(&mut bytes).unwrap();
                assert!(bytes == asset.plain, "{}: run scripts/tracker", asset.path);
            }
            str::from_utf8(asset.plain).unwrap();
        }
    }

    #[test]
    fn the_tracker_is_small() {
        let bytes = TRACKER.gzip.unwrap().len();
        assert!(bytes <= TRACKER_GZIP_BYTES_MAX, "{bytes}");
    }

    #[test]
    fn what_is_frozen_is_what_it_was() {
        let frozen = include_str!("web/frozen.txt");
        assert!(frozen.contains(&TRACKER_V1.integrity()), "{}: pages refuse another one", TRACKER_V1.integrity());
        assert!(TRACKER_V1.is_frozen);
    }

    #[test]
    fn tags_are_of_the_bytes() {
        assert_ne!(TRACKER.tag(), TRACKER_MODULE.tag());
        assert_eq!(TRACKER.tag(), tag(TRACKER.plain));
    }
}
