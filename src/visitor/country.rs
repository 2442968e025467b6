//! Where an address is: its country, by a database in MaxMind's format (GeoLite2, GeoIP2 and others that name the
//! country in the same place, <https://maxmind.github.io/MaxMind-DB/>).

use std::{
    fs::{self, File},
    io::{self, Read},
    net::IpAddr,
    path::Path,
};

use maxminddb::{LookupResult, MaxMindDbError, Reader, WithinOptions, path};
use parking_lot::RwLock;

/// The largest database that is taken, in bytes: it is in memory as a whole, and the largest that is sold has less.
const DATABASE_BYTES_MAX: u64 = 1 << 30;
/// Of so many networks one must have a country.
const NETWORKS_TRIED: usize = 10_000;

type Database = Reader<Vec<u8>>;

/// The countries of addresses; without a database none is known.
#[derive(Default)]
pub struct Countries(RwLock<Option<Database>>);

/// A country: two letters of ISO 3166-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country([u8; 2]);

/// Why a database is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CountriesError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] io::Error),
    /// It is no file.
    #[error("it is no regular file")]
    NoFile,
    /// It is larger than any that is known.
    #[error("it is larger than 1 GiB")]
    TooLarge,
    /// It is no database of this kind.
    #[error("it is no database in MaxMind's format: {0}")]
    Format(#[from] MaxMindDbError),
    /// It names no countries.
    #[error("it names no countries (no country.iso_code); GeoLite2-Country and GeoLite2-City do")]
    NoCountries,
}

impl Countries {
    /// Puts the database in this file in the place of the one before, which stays if the file is not good.
    pub fn read(&self, path: &Path) -> Result<(), CountriesError> {
        // A pipe would be waited for, and a device has no end.
        if !fs::metadata(path)?.is_file() {
            return Err(CountriesError::NoFile);
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(DATABASE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > DATABASE_BYTES_MAX {
            return Err(CountriesError::TooLarge);
        }
        let database = open(bytes)?;
        *self.0.write() = Some(database);
        Ok(())
    }

    /// The country of an address, if it is known.
    pub fn of(&self, address: IpAddr) -> Option<Country> {
        country(&self.0.read().as_ref()?.lookup(address.to_canonical()).ok()?)
    }
}

impl Country {
    /// The two letters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn open(bytes: Vec<u8>) -> Result<Database, CountriesError> {
    let database = Reader::from_source(bytes)?;
    let mut networks = database.networks(WithinOptions::default())?.take(NETWORKS_TRIED);
    let names_countries = networks.any(|network| network.is_ok_and(|network| country(&network).is_some()));
    drop(networks);
    if names_countries { Ok(database) } else { Err(CountriesError::NoCountries) }
}

fn country(found: &LookupResult<'_, Vec<u8>>) -> Option<Country> {
    let code: &str = found.decode_path(&path!["country", "iso_code"]).ok()??;
    let letters = code.as_bytes().try_into().ok()?;
    code.bytes().all(|letter| letter.is_ascii_uppercase()).then_some(Country(letters))
}
