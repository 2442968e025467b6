//! How far a tail has come: what was printed, and the command that goes on behind it, which a signal may ask for at any
//! moment.
//!
//! The place moves with what is printed and never before it. Lines are written in pieces that a pipe takes whole or not
//! at all, so that while one waits for whoever reads, the place stands before it. A longer line is the exception: who
//! goes on may see it whole after having seen a part.

use std::{ffi::OsString, mem, time::Duration};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    command,
    tools::{ToolError, print},
};

/// What a pipe takes whole or not at all, in bytes: `PIPE_BUF` of Linux.
const PIECE_BYTES: usize = 4_096;
/// How long the last words wait until what is being printed is printed.
const PRINT_TIMEOUT: Duration = Duration::from_secs(1);

/// Where a tail is.
#[derive(Debug, Default)]
pub struct Bookmark {
    /// Held while a piece is written and the place moves.
    printing: Mutex<()>,
    place: Mutex<Option<Place>>,
}

#[derive(Debug)]
struct Place {
    /// The words of the command, without the position.
    words: Vec<OsString>,
    position: String,
}

impl Bookmark {
    /// The command that goes on behind all that was printed, for the end of the process; nothing is printed any more.
    /// `None` if nothing has begun.
    pub fn last_words(&self) -> Option<String> {
        // Without it, nothing is being printed that could still be seen but a piece that nobody takes.
        mem::forget(self.printing.try_lock_for(PRINT_TIMEOUT));
        self.command().map(|command| format!("Go on with: {command}"))
    }

    /// The command that goes on behind all that was printed.
    pub(super) fn command(&self) -> Option<String> {
        let place = self.place.lock();
        let place = place.as_ref()?;
        let after = command::flag("after", &place.position);
        Some(command::hitlog(place.words.iter().cloned().chain([after])))
    }

    /// Begins where nothing is printed yet. The words are those of the command, without the position.
    pub(super) fn begin(&self, words: Vec<OsString>, position: &str) {
        *self.place.lock() = Some(Place { words, position: position.to_owned() });
    }

    /// The position behind all that was printed; `None` if nothing has begun.
    pub(super) fn position(&self) -> Option<String> {
        self.place.lock().as_ref().map(|place| place.position.clone())
    }

    /// Moves on where nothing is to be printed.
    pub(super) fn move_to(&self, position: &str) {
        if let Some(place) = &mut *self.place.lock() {
            position.clone_into(&mut place.position);
        }
    }

    /// There is nothing to go on with any more.
    pub(super) fn close(&self) {
        *self.place.lock() = None;
    }

    fn print(&self, lines: &[u8], position: &str) -> Result<(), ToolError> {
        let printing = self.printing.lock();
        print(lines)?;
        self.move_to(position);
        // Whoever waits to say the last words has them before the next piece.
        MutexGuard::unlock_fair(printing);
        Ok(())
    }
}

/// Lines that are about to be printed.
pub(super) struct Page<'a> {
    bookmark: &'a Bookmark,
    lines: Vec<u8>,
    /// The position of the last of them.
    position: String,
}

impl<'a> Page<'a> {
    pub(super) fn new(bookmark: &'a Bookmark) -> Self {
        Self { bookmark, lines: Vec::new(), position: String::new() }
    }

    /// Adds a line that ends with a line feed.
    pub(super) fn add(&mut self, line: &[u8], position: &str) -> Result<(), ToolError> {
        if self.lines.len() + line.len() > PIECE_BYTES {
            self.print()?;
        }
        self.lines.extend_from_slice(line);
        position.clone_into(&mut self.position);
        Ok(())
    }

    /// Prints what was added.
    pub(super) fn print(&mut self) -> Result<(), ToolError> {
        if self.lines.is_empty() {
            return Ok(());
        }
        self.bookmark.print(&self.lines, &self.position)?;
        self.lines.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_last_words_name_the_place() {
        let bookmark = Bookmark::default();
        bookmark.move_to("before-anything");
        assert_eq!((bookmark.position(), bookmark.last_words()), (None, None));
        let bookmark = Bookmark::default();
        bookmark.begin(["tail", "--website=it's"].map(OsString::from).into(), "P0");
        assert_eq!(bookmark.command().unwrap(), "hitlog tail --website=\"it's\" --after=P0");
        bookmark.move_to("P1");
        assert_eq!(bookmark.last_words().unwrap(), "Go on with: hitlog tail --website=\"it's\" --after=P1");
        assert!(bookmark.printing.try_lock().is_none(), "nothing is printed after the last words");
        bookmark.close();
        assert_eq!(bookmark.command(), None);
    }

    #[test]
    fn last_words_do_not_wait_for_a_print_that_nobody_takes() {
        let bookmark = Bookmark::default();
        bookmark.begin(vec!["tail".into()], "P0");
        let _printing = bookmark.printing.lock();
        let said = thread::scope(|scope| scope.spawn(|| bookmark.last_words()).join().unwrap());
        assert_eq!(said.unwrap(), "Go on with: hitlog tail --after=P0");
    }
}
