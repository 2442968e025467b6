//! How SQLite was compiled: whether it is as fast as hitlog wants it.
//!
//! The flags stand in `.cargo/config.toml`, which cargo does not read wherever it runs; without them everything works
//! and is as durable, and costs more. The library tells of all of them but the function that it syncs with, which the
//! build script has looked up in it.

use rusqlite::Connection;

/// How SQLite was compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteBuild {
    /// What it costs, a clause for each flag that is missing.
    shortcomings: Vec<&'static str>,
}

impl SqliteBuild {
    /// Asks the library that is linked in.
    pub(crate) fn of_library() -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        let mut list = connection.prepare("PRAGMA compile_options")?;
        let options = list.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        Ok(Self::of(&options, env!("SQLITE_SYNC_OF_HITLOG")))
    }

    fn of(options: &[String], sync: &str) -> Self {
        let has = |wanted: &str| options.iter().any(|option| option == wanted);
        let all = [
            (sync == "fsync", "it syncs with fsync, so that every commit writes the times of a file as well"),
            (sync == "unknown", "it is not known whether it syncs with fdatasync, which is the faster way"),
            (
                has("ENABLE_MEMORY_MANAGEMENT"),
                "the page caches of all connections share one lock and one bound, so that the writer waits for readers \
                 and the sealer",
            ),
            (!has("DEFAULT_MEMSTATUS=0"), "every allocation takes a global lock to be counted"),
            (has("ENABLE_API_ARMOR"), "every call checks its arguments, twenty times for an event"),
        ];
        Self { shortcomings: all.into_iter().filter_map(|(lacks, what)| lacks.then_some(what)).collect() }
    }

    /// What it costs, in words; `None` if it is as hitlog wants it.
    pub fn shortcomings(&self) -> Option<String> {
        (!self.shortcomings.is_empty()).then(|| self.shortcomings.join("; "))
    }

    /// The same as a label.
    pub fn as_str(&self) -> &'static str {
        if self.shortcomings.is_empty() { "as_wanted" } else { "slower" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told() {
        for (options, sync, wanted) in [
            (&["DEFAULT_MEMSTATUS=0"][..], "fdatasync", &[][..]),
            (&["DEFAULT_MEMSTATUS=0"], "fsync", &["with fsync"]),
            (&["DEFAULT_MEMSTATUS=0"], "unknown", &["not known"]),
            (&[], "fdatasync", &["global lock"]),
            (&["DEFAULT_MEMSTATUS=0", "ENABLE_API_ARMOR"], "fdatasync", &["arguments"]),
            (&["DEFAULT_MEMSTATUS=0", "ENABLE_MEMORY_MANAGEMENT"], "fdatasync", &["page caches"]),
            (
                &["ENABLE_API_ARMOR", "ENABLE_MEMORY_MANAGEMENT"],
                "fsync",
                &["with fsync", "page caches", "global lock", "arguments"],
            ),
        ] {
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            let build = SqliteBuild::of(&options, sync);
            let told = build.shortcomings().unwrap_or_default();
            assert_eq!(build.shortcomings.len(), wanted.len(), "{options:?} {sync}: {told}");
            assert!(wanted.iter().all(|words| told.contains(words)), "{options:?} {sync}: {told}");
            assert_eq!(build.as_str(), if wanted.is_empty() { "as_wanted" } else { "slower" });
        }
    }

    /// Tests run within the project's folder, where the flags are read.
    #[test]
    fn this_build_is_as_wanted() {
        assert_eq!(SqliteBuild::of_library().unwrap().shortcomings(), None);
    }
}
