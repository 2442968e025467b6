//! The tracker in a real Chromium, its events asked back from hitlog. Where Chromium is not installed the tests say
//! SKIPPED; where CI is set, they fail.

mod built;
mod clicks;
mod cost;
mod driver;
mod faults;
mod pages;
mod privacy;
mod site;
mod views;
mod world;
