//! hitlog from outside: the real binary over its sockets, files and signals, parts of its library over whatever comes in,
//! and its source (`architecture`). One crate, so that it is linked once and its tests run side by side.

mod api;
mod architecture;
mod bounds;
mod browsers;
mod clients;
mod clocks;
mod copies;
mod crash;
mod denied;
mod disk;
mod durability;
mod edge;
mod epochs;
mod full_disk;
mod guide;
mod lifecycle;
mod log;
mod messages;
mod moved;
mod oddities;
mod openapi;
mod permissions;
mod power;
mod powercut;
mod properties;
mod quarantine;
mod queue;
mod retention_and_erasure;
mod scratch;
mod segments;
mod signals;
mod smuggling;
mod tokens;
mod tools;
mod websites;
