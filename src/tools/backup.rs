//! `hitlog backup`: a copy that hitlog can start from.

use std::path::PathBuf;

use indicatif::HumanBytes;

use super::{
    Outcome, ToolError,
    progress::{Unit, bar},
    table::pluralize,
    tell_done,
};
use crate::{
    command::{hitlog, hitlog_on, is_setting},
    store::offline::{Backup, OfflineDir},
};

/// What to copy, and where to.
#[derive(Debug)]
pub struct BackupOptions {
    /// Where the events are.
    pub data_dir: PathBuf,
    /// Where the copy is to be: an empty directory, or a new one in a directory that exists.
    pub to: PathBuf,
}

/// Copies everything and says how to start from the copy; `Ok(false)` if a segment's file is missing or damaged.
pub fn run(options: &BackupOptions) -> Outcome {
    if !is_setting(&options.to) {
        return Err(ToolError::Arguments(
            "the directory's name has a control character in it, or a space at an end, and no start could be told of \
             it; choose another"
                .into(),
        ));
    }
    let directory = OfflineDir::open(&options.data_dir)?;
    let backup = Backup::new(&directory, &options.to)?;
    let bar = bar("copying", 0, Unit::Bytes);
    let report = backup.run(|progress| {
        bar.set_length(progress.total);
        bar.set_position(progress.done);
    })?;
    bar.finish_and_clear();
    let (linked, copied) = (report.linked, report.copied);
    let mut text = format!(
        "{} linked ({}), {} copied ({}), and the catalog.\nStart from it with: {}\n",
        pluralize(linked.files, "segment"),
        HumanBytes(linked.bytes),
        copied.files,
        HumanBytes(copied.bytes),
        hitlog_on(&options.to, ["serve"])
    );
    if linked.files > 0 {
        text.push_str("A linked segment shares its disk with the original; to be safe from the loss of that disk, ");
        text.push_str("copy the backup elsewhere.\n");
    }
    for path in &report.missing {
        text.push_str(&format!("{}: listed and not there, so it is not in the backup\n", path.display()));
    }
    for (path, damage) in &report.damaged {
        text.push_str(&format!("{}: damaged, and so in the backup: {damage}\n", path.display()));
    }
    if report.quarantined > 0 {
        let files = pluralize(report.quarantined as u64, "file");
        let list = hitlog(["quarantine", "list"]);
        text.push_str(&format!("{files} in quarantine: not in the backup; see `{list}`\n"));
    }
    if let Some(error) = &report.unmarked {
        text.push_str(&format!(
            "The backup is whole, but {} could not be told of it ({error}): the metric \
             hitlog_last_backup_timestamp_seconds does not count it.\n",
            options.data_dir.display()
        ));
    }
    tell_done(&text, "")?;
    Ok(report.is_whole())
}
