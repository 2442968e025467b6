//! The tracker in a real Chromium, its events asked back from hitlog. Where Chromium is not installed the tests say
//! SKIPPED; where CI is set, they fail.

mod clicks;
mod driver;
mod site;
mod views;
mod world;
