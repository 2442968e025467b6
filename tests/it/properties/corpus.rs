//! Inputs that are kept, in `corpus/<target>`: for each rule the shortest one known for which it makes the difference,
//! under the rule's name, and whatever else somebody puts there. They are tried as they are before anything else, and
//! with damage beside those that are made anew.
//!
//! With `HITLOG_CORPUS=grow`, which `scripts/properties SECONDS grow` sets, a shorter input takes a kept one's place.

use std::{cell::Cell, fs, path::PathBuf};

use proptest::{prelude::*, sample::select};

use super::mutation::Token;

pub struct Corpus {
    folder: PathBuf,
    inputs: Vec<Vec<u8>>,
    pub grows: bool,
    grown: Cell<usize>,
}

impl Corpus {
    pub fn open(target: &str) -> Self {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/properties/corpus")).join(target);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        let inputs = files.iter().map(|file| fs::read(file).unwrap()).collect();
        let grows = std::env::var("HITLOG_CORPUS").is_ok_and(|what| what == "grow");
        Self { folder, inputs, grows, grown: Cell::new(0) }
    }

    /// Without any, to see that what is made anew reaches every rule.
    pub fn none() -> Self {
        Self { folder: PathBuf::new(), inputs: Vec::new(), grows: false, grown: Cell::new(0) }
    }

    pub fn inputs(&self) -> &[Vec<u8>] {
        &self.inputs
    }

    /// What to damage: made anew, or now and then a kept one.
    pub fn or(&self, made: impl Strategy<Value = Vec<u8>> + 'static) -> BoxedStrategy<Token> {
        if self.inputs.is_empty() {
            return made.prop_map(Token).boxed();
        }
        prop_oneof![4 => made, 1 => select(self.inputs.clone())].prop_map(Token).boxed()
    }

    /// Keeps an input under this name, unless one as short is kept.
    pub fn keep(&self, name: &str, input: &[u8]) {
        let name: String = name.chars().filter(|letter| letter.is_alphanumeric()).collect();
        let path = self.folder.join(name);
        if fs::metadata(&path).map_or(true, |kept| input.len() < kept.len() as usize) {
            fs::write(path, input).unwrap();
            self.grown.set(self.grown.get() + 1);
        }
    }
}

impl Drop for Corpus {
    fn drop(&mut self) {
        if self.grown.get() > 0 {
            println!("{}: {} inputs kept", self.folder.display(), self.grown.get());
        }
    }
}
