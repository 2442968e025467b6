//! Files among the segments that are not the listed generation of one: removed, or put into quarantine.
//!
//! Removed is what the catalog knows as replaced, dropped or never listed, and what holds nothing. Everything else may
//! hold events that were acknowledged, by a catalog that is not this one: a backup was copied over the directory, say.
//! It is moved away from the segments, loudly, and no number or sequence found in it is given again.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    command::hitlog,
    store::{
        catalog::{CatalogFile, ListedSegment, SegmentChange, SegmentState},
        error::{OpenError, is_disk_full},
        format::{
            DataDir, SegmentName, SegmentPaths, file, is_file, quarantine::Quarantine, schema::SEQUENCE_MAX,
            sync_directory,
        },
        segments::{Identity, Segments},
    },
};

/// What is in quarantine.
pub(super) struct Strays {
    /// The highest number of a segment; 0 if nothing is there.
    pub(super) highest_number: i64,
    /// No sequence below this one may be given.
    pub(super) sequence_floor: u64,
}

/// Clears the folder of segments, of which the sealed ones are shown by now.
pub(super) fn clear(
    directory: &DataDir,
    catalog: &mut CatalogFile,
    listed: &[ListedSegment],
    segments: &Segments,
) -> Result<Strays, OpenError> {
    let paths = directory.segment_paths();
    let quarantine = Quarantine::of_directory(directory.path());
    let known = Known { paths: &paths, listed, leftovers: catalog.leftovers()?, segments };
    let (mut kept, mut removed, mut moved, mut unmoved) = (BTreeSet::new(), 0, Vec::new(), Vec::new());
    for (identity, names) in generations(&paths)? {
        let path = paths.of(identity.number, identity.generation);
        // Keys can be made anew, and are worth nothing without their segment.
        let only_keys = names.iter().all(|name| name.to_str().is_some_and(file::is_keys));
        match if only_keys { Fate::Remove } else { known.fate(identity, &path) } {
            Fate::Stay => {
                kept.insert((identity.number, identity.generation));
                moved.extend(set_foreign_log_aside(directory, &quarantine, &path)?);
            }
            Fate::Remove => {
                tracing::info!(files = ?names, "removing what an interrupted rewriting has left");
                file::remove(&path).map_err(OpenError::io("remove the leftover", &path))?;
                removed += 1;
            }
            Fate::Quarantine(reason) => match put_into(&quarantine, &path, &reason) {
                Some(name) => moved.push((name, reason)),
                None => unmoved.push((identity.number, path)),
            },
        }
    }
    if removed > 0 {
        sync_directory(paths.folder())?;
    }
    let mut gone = known.leftovers;
    let dropped = listed.iter().filter(|segment| segment.state == SegmentState::Dropped);
    gone.extend(dropped.map(ListedSegment::identity));
    gone.retain(|of| !kept.contains(&(of.number, of.generation)));
    if !gone.is_empty() {
        if_there_is_room(catalog.change_segments(&SegmentChange::Unlinked(gone)))?;
    }
    let in_quarantine = quarantine.files()?.into_iter().map(|file| (file.number, file.path));
    note(&in_quarantine.chain(unmoved).collect::<Vec<_>>(), moved, catalog, segments)
}

/// Has the catalog note what was moved, and raises its floors above what is in quarantine.
fn note(
    strays: &[(i64, PathBuf)],
    moved: Vec<(String, String)>,
    catalog: &mut CatalogFile,
    segments: &Segments,
) -> Result<Strays, OpenError> {
    // What cannot be read tells no sequence, and what hitlog cannot have given must not end what it gives.
    let last = strays.iter().filter_map(|(_, path)| file::last_sequence_of(path).ok().flatten());
    let sequence_floor = last.filter(|last| *last <= SEQUENCE_MAX).max().map_or(0, |last| last + 1);
    let numbers = strays.iter().map(|(number, _)| *number);
    let highest_number = numbers.filter(|number| *number <= SegmentPaths::NUMBER_MAX).max().unwrap_or(0);
    let is_known = sequence_floor <= catalog.sequence_floor() && highest_number <= catalog.number_floor()?;
    if !moved.is_empty() || !is_known {
        let change = SegmentChange::Quarantined { files: moved, number_floor: highest_number, sequence_floor };
        if_there_is_room(catalog.change_segments(&change))?;
    }
    segments.count_quarantined(strays.len());
    if !strays.is_empty() {
        tracing::error!(
            files = strays.len(),
            "there are files in quarantine: no erasure ends before each is adopted or discarded. `{}` tells of them",
            hitlog(["quarantine", "list"])
        );
    }
    Ok(Strays { highest_number, sequence_floor })
}

/// Passes over a full disk: what could not be noted is found again by the next start.
pub(super) fn if_there_is_room(changed: Result<(), OpenError>) -> Result<(), OpenError> {
    match changed {
        Err(OpenError::Sqlite { source, .. }) if is_disk_full(&source) => {
            tracing::warn!(error = %source, "no room to note what was found at the start; the next start does");
            Ok(())
        }
        other => other,
    }
}

/// Moves a file into quarantine, and returns its name there; `None` if it has to stay where it is.
fn put_into(quarantine: &Quarantine, path: &Path, reason: &str) -> Option<String> {
    match quarantine.take_in(path) {
        Ok(name) => {
            tracing::error!(
                file = %path.display(), to = %name, %reason,
                "put into quarantine: it may hold events that were acknowledged, and is in no answer. `{}` says what \
                 it holds",
                hitlog(["quarantine", "list"])
            );
            Some(name)
        }
        Err(error) => {
            tracing::error!(
                file = %path.display(), %error, %reason,
                "could not be put into quarantine and stays where it is; it is in no answer"
            );
            None
        }
    }
}

/// A database that was copied over another, such as a backup's, has nothing to do with the log of that.
fn set_foreign_log_aside(
    directory: &DataDir,
    quarantine: &Quarantine,
    path: &Path,
) -> Result<Option<(String, String)>, OpenError> {
    let ties = directory.ties();
    if !ties.is_foreign(path)? {
        return Ok(None);
    }
    ties.note_copy()?;
    let name = quarantine.take_in_beside(path)?;
    ties.admit(path)?;
    tracing::error!(
        file = %path.display(), to = %name,
        "its write-ahead log is that of another file which was here before: put into quarantine, as it may hold events \
         that were acknowledged"
    );
    Ok(Some((name, format!("the log of another {}, which was here before", path.display()))))
}

/// The generations of which there are files, each with the names of its files.
fn generations(paths: &SegmentPaths) -> Result<Vec<(Identity, Vec<OsString>)>, OpenError> {
    let mut found: BTreeMap<(i64, i64), Vec<OsString>> = BTreeMap::new();
    for entry in fs::read_dir(paths.folder()).map_err(OpenError::io("read the directory", paths.folder()))? {
        let entry = entry.map_err(OpenError::io("read the directory", paths.folder()))?;
        match entry.file_name().to_str().map(SegmentPaths::parse) {
            // A link to a file may lead to where there is more room.
            Some(SegmentName::Generation(number, generation)) if entry.path().is_file() => {
                found.entry((number, generation)).or_default().push(entry.file_name());
            }
            Some(SegmentName::Generation(..)) => drop(is_file(&entry)?),
            // What was being built is gone by now: it made room for this start.
            Some(SegmentName::Unfinished | SegmentName::Foreign) | None => {}
        }
    }
    Ok(found.into_iter().map(|((number, generation), names)| (Identity { number, generation }, names)).collect())
}

/// What becomes of a generation.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stay,
    Remove,
    /// With the reason.
    Quarantine(String),
}

/// What the catalog says.
struct Known<'a> {
    paths: &'a SegmentPaths,
    listed: &'a [ListedSegment],
    leftovers: Vec<Identity>,
    segments: &'a Segments,
}

impl Known<'_> {
    fn fate(&self, identity: Identity, path: &Path) -> Fate {
        let listed = self.listed.iter().find(|segment| segment.number == identity.number);
        match listed {
            Some(segment) if segment.generation == identity.generation => {
                return if segment.state == SegmentState::Dropped { Fate::Remove } else { Fate::Stay };
            }
            Some(segment) if self.leftovers.contains(&identity) => {
                return self.fate_of_leftover(segment, identity, path);
            }
            None if self.leftovers.contains(&identity) => return Fate::Remove,
            _ => {}
        }
        match file::last_sequence_of(path) {
            // Its making was cut short before anything was in it.
            Ok(None) => Fate::Remove,
            Ok(Some(last)) => Fate::Quarantine(format!(
                "the catalog does not know this generation of segment {}, which holds events up to sequence {last}",
                identity.number
            )),
            Err(error) => Fate::Quarantine(format!(
                "the catalog does not know this generation of segment {}, which cannot be read: {}",
                identity.number,
                error.reason()
            )),
        }
    }

    /// What the catalog knows as left over may still be all that is left of the segment. A later generation than the
    /// listed one was about to be listed: it has no event that the listed one lacks, unless this is the catalog of
    /// another day.
    fn fate_of_leftover(&self, listed: &ListedSegment, identity: Identity, path: &Path) -> Fate {
        if listed.state == SegmentState::Dropped {
            return Fate::Remove;
        }
        let listed_path = self.paths.of(listed.number, listed.generation);
        let is_shown = self.segments.view().segment(listed.number).is_some();
        if !listed_path.exists() || (listed.state == SegmentState::Sealed && !is_shown) {
            return Fate::Stay;
        }
        if identity.generation < listed.generation {
            return Fate::Remove;
        }
        let (last, last_listed) = (file::last_sequence_of(path), file::last_sequence_of(&listed_path));
        match (last, last_listed) {
            (Ok(last), Ok(last_listed)) if last <= last_listed => Fate::Remove,
            (Ok(_), _) => Fate::Quarantine("it holds events that the listed generation of its segment lacks".into()),
            (Err(error), _) => Fate::Quarantine(format!("it cannot be read: {}", error.reason())),
        }
    }
}
