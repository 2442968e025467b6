//! Under which number this data directory ships: registered at the target, so that no two ship under one.
//!
//! An event is known there by its node and its sequence. A start from a copy gives sequences again that the original
//! has given, so it takes a number of its own: the number of the setting, plus 65,536 for each start from a copy. The
//! numbers that it had before pass to it: the original, if it still runs, sees that and pauses.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    server::{Claim, Server},
    trouble::Trouble,
};
use crate::store::ShipNode;

/// How long nothing is sent after a number was taken over.
const TAKEN_OVER_PAUSE: Duration = Duration::from_secs(20);
/// What a start from a copy adds to a node's number.
const OF_COPY: u32 = 1 << 16;

/// What is to be registered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// All is as it was.
    Held,
    /// This number is free, and to be taken.
    Take(u32),
    /// Somebody has to do something.
    Refuse(String),
}

/// What a data directory knows of its own numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory<'a> {
    /// The nodes that it had before its last start from a copy.
    pub(super) before: &'a [ShipNode],
    /// The node that it has now.
    pub(super) newest: &'a ShipNode,
    /// Whether anything was, or may have been, sent under that one.
    pub(super) has_shipped: bool,
}

/// What to register for the newest node of a directory, by what is registered in the table of nodes, which has this
/// name.
pub(super) fn plan(claims: &[Claim], directory: Directory<'_>, nodes: &str) -> Plan {
    let Directory { before, newest, has_shipped } = directory;
    let holder = |node: u32| claims.iter().find(|claim| claim.node == node && claim.holds);
    let holds = |node: u32| holder(node).is_some_and(|claim| claim.instance == newest.instance);
    let is_named = !newest.instance.is_empty();
    if is_named && has_shipped {
        return match claims.iter().find(|claim| claim.node == newest.node && claim.instance == newest.instance) {
            Some(claim) if claim.holds => Plan::Held,
            Some(_) => Plan::Refuse(taken_over(newest.node)),
            None => Plan::Refuse(format!(
                "the target does not know this hitlog, which has shipped to it as node {}: it is another server, or \
                 the table of nodes there was emptied or dropped. Set ship_url back to the server that has the \
                 events; or, where they are all here and only the table of nodes is not, register it again: \
                 INSERT INTO {nodes} VALUES {}. `hitlog ship resume --from-start` ships to another server all events \
                 that are kept and are not there",
                newest.node,
                own_claims(before, newest),
            )),
        };
    }
    if is_named && holds(newest.node) && before.iter().all(|node| holds(node.node)) {
        return Plan::Held;
    }
    if before.is_empty() {
        return match holder(newest.node) {
            Some(other) if other.instance != newest.instance => Plan::Refuse(format!(
                "another hitlog ships as node {} (it is registered as {}): give each its own number with the setting \
                 node, and restart",
                newest.node, other.instance
            )),
            _ => Plan::Take(newest.node),
        };
    }
    // A number that anybody else ever had stays theirs: its sequences are taken.
    let is_taken = |node: u32| claims.iter().any(|claim| claim.node == node && claim.instance != newest.instance);
    let mut numbers = std::iter::successors(Some(newest.node), |node| node.checked_add(OF_COPY));
    match numbers.find(|node| *node >= OF_COPY && !is_taken(*node)) {
        Some(node) => Plan::Take(node),
        None => Plan::Refuse("no number is left for another start from a copy: set node to another one".into()),
    }
}

/// The rows that register the numbers of a directory.
fn own_claims(before: &[ShipNode], newest: &ShipNode) -> String {
    let mut numbers: Vec<_> = before.iter().chain([newest]).map(|node| node.node).collect();
    numbers.dedup();
    let row = |number: &u32| format!("({number}, '{}', 'holds', now64(6))", newest.instance);
    numbers.iter().map(row).collect::<Vec<_>>().join(", ")
}

/// What the names of all attempts for a node begin with.
pub(super) fn attempts(node: u32) -> String {
    format!("hitlog-{node}-")
}

/// Whether an instance, and nobody else, holds the number of a range; and otherwise why not. `at` is what the server
/// wrote when this process registered the newest number, which only another with the same name writes anew.
pub(super) fn hold(claims: &[Claim], node: u32, newest: &ShipNode, at: &str) -> Result<(), Trouble> {
    let is_own = |claim: &&Claim| claim.instance == newest.instance;
    let (own, others): (Vec<_>, Vec<_>) =
        claims.iter().filter(|claim| claim.node == node && claim.holds).partition(is_own);
    match (own.is_empty(), others.is_empty()) {
        // Nobody has it: a new session says what is to be done.
        (true, true) => return Err(Trouble::Again),
        (false, true) => {}
        (_, false) => return Err(Trouble::Pause(taken_over(node))),
    }
    if is_anothers(claims, newest, at) { Err(Trouble::Pause(twin(node))) } else { Ok(()) }
}

/// Whether the claim of the newest number, which this process wrote `at` that time, was written anew by another with
/// the same name.
pub(super) fn is_anothers(claims: &[Claim], newest: &ShipNode, at: &str) -> bool {
    let own = claims.iter().find(|claim| claim.node == newest.node && claim.instance == newest.instance);
    own.is_some_and(|claim| claim.at != at)
}

fn taken_over(node: u32) -> String {
    format!(
        "a hitlog that was started from a copy of this data directory ships as node {node} now. Two must not: end one \
         of them; or, if both are to go on, start this one once with `hitlog serve --restored`, which gives what it \
         takes in from then on a number of its own"
    )
}

/// What is said where a data directory that is the same as this one ships, or has shipped.
pub(super) fn twin(node: u32) -> String {
    format!(
        "the target has events of node {node} that this data directory has not shipped: it was put back from a copy, \
         or the same data directory runs twice. End the other hitlog; and start this one once with `hitlog serve \
         --restored`, which gives what it takes in from then on a number of its own"
    )
}

/// Registers a node's number for an instance, and that those before pass to it. Returns when, as the server writes it.
pub(super) async fn take(server: &Server, node: u32, instance: &str, before: &[ShipNode]) -> Result<String, Trouble> {
    server.claim((node, instance), true).await?;
    let claims = server.claims().await?;
    let of_node = || claims.iter().filter(|claim| claim.node == node);
    if of_node().any(|claim| claim.instance != instance && claim.holds) {
        // Two have taken it in the same moment: neither keeps it.
        server.claim((node, instance), false).await?;
        return Err(Trouble::Pause(format!(
            "another hitlog has registered as node {node} in this moment: give each its own number with the setting \
             node, and restart"
        )));
    }
    let own = of_node().find(|claim| claim.instance == instance);
    let at = own.map(|claim| claim.at.clone()).ok_or_else(|| {
        Trouble::Wait(format!("{} does not show what was written to it a moment ago", server.nodes()))
    })?;
    let mut has_taken_over = false;
    for earlier in before {
        // The original's, and those of others that were started from copies of it.
        for other in claims.iter().filter(|of| of.node == earlier.node && of.holds && of.instance != instance) {
            server.claim((other.node, &other.instance), false).await?;
            has_taken_over = true;
        }
        if !claims.iter().any(|of| of.node == earlier.node && of.holds && of.instance == instance) {
            server.claim((earlier.node, instance), true).await?;
        }
    }
    if has_taken_over {
        // They look before they send, unless they have just looked.
        sleep(TAKEN_OVER_PAUSE).await;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: u32, instance: &str, holds: bool) -> Claim {
        Claim { node, instance: instance.into(), holds, at: String::new() }
    }

    fn node(first_sequence: u64, node: u32, instance: &str) -> ShipNode {
        ShipNode { first_sequence, node, instance: instance.into() }
    }

    fn decide(claims: &[Claim], directory: Directory<'_>) -> Plan {
        plan(claims, directory, "web.events_nodes")
    }

    fn of<'a>(before: &'a [ShipNode], newest: &'a ShipNode, has_shipped: bool) -> Directory<'a> {
        Directory { before, newest, has_shipped }
    }

    #[test]
    fn no_two_hold_one_number() {
        let refused = |plan: Plan, words: &str| match plan {
            Plan::Refuse(why) => assert!(why.contains(words), "{why}"),
            plan => panic!("{plan:?}"),
        };
        let new = |claims: &[Claim]| decide(claims, of(&[], &node(0, 3, ""), false));
        assert_eq!(new(&[]), Plan::Take(3));
        assert_eq!(new(&[claim(3, "a", false), claim(4, "b", true)]), Plan::Take(3));
        refused(new(&[claim(3, "a", true)]), "another hitlog ships as node 3");
        let known = |claims: &[Claim]| decide(claims, of(&[], &node(0, 3, "a"), true));
        assert_eq!(known(&[claim(3, "a", true)]), Plan::Held);
        refused(known(&[]), "does not know this hitlog");
        refused(known(&[claim(3, "a", false), claim(3, "b", true)]), "from a copy of this");
    }

    #[test]
    fn who_was_cut_off_while_it_took_a_number_takes_it_again() {
        let cut_off = |claims: &[Claim]| decide(claims, of(&[], &node(0, 3, "a"), false));
        assert_eq!(cut_off(&[]), Plan::Take(3));
        assert_eq!(cut_off(&[claim(3, "a", false)]), Plan::Take(3));
        assert_eq!(cut_off(&[claim(3, "a", true)]), Plan::Held);
        assert!(matches!(cut_off(&[claim(3, "a", false), claim(3, "b", true)]), Plan::Refuse(_)));
        // Of a copy, which takes over what was before as well.
        let before = [node(0, 3, "a")];
        let cut_off = |claims: &[Claim]| decide(claims, of(&before, &node(100, 65_539, "b"), false));
        assert_eq!(cut_off(&[claim(3, "a", true)]), Plan::Take(65_539));
        assert_eq!(cut_off(&[claim(3, "a", true), claim(65_539, "b", true)]), Plan::Take(65_539));
        assert_eq!(cut_off(&[claim(3, "a", true), claim(65_539, "c", true)]), Plan::Take(131_075));
        assert_eq!(cut_off(&[claim(3, "a", false), claim(3, "b", true), claim(65_539, "b", true)]), Plan::Held);
    }

    #[test]
    fn before_it_is_sent_it_is_seen_who_holds_the_number() {
        let own = |at: &str| Claim { at: at.into(), ..claim(3, "a", true) };
        let newest = node(0, 3, "a");
        let words = |claims: &[Claim]| match hold(claims, 3, &newest, "now") {
            Ok(()) => String::new(),
            Err(trouble) => trouble.to_string(),
        };
        assert_eq!(words(&[own("now"), claim(4, "b", true)]), "");
        assert!(words(&[own("later")]).contains("runs twice"));
        assert!(words(&[own("now"), claim(3, "b", true)]).contains("from a copy"));
        assert!(words(&[claim(3, "a", false), claim(3, "b", true)]).contains("from a copy"));
        // Nobody has taken it: a new session finds out what has happened.
        assert_eq!(hold(&[claim(4, "b", true)], 3, &newest, "now"), Err(Trouble::Again));
        assert!(is_anothers(&[own("later")], &newest, "now"));
        assert!(!is_anothers(&[own("now")], &newest, "now"));
        assert!(!is_anothers(&[own("later")], &node(0, 3, "b"), "now"), "under another name it was somebody else");
        let rows = own_claims(&[node(0, 3, "x")], &node(9, 65_539, "a"));
        assert_eq!(rows, "(3, 'a', 'holds', now64(6)), (65539, 'a', 'holds', now64(6))");
    }

    #[test]
    fn a_start_from_a_copy_takes_a_number_that_nobody_ever_had() {
        let before = [node(0, 3, "a")];
        let of_copy = |claims: &[Claim]| decide(claims, of(&before, &node(100, 3, ""), false));
        assert_eq!(of_copy(&[claim(3, "a", true)]), Plan::Take(65_539));
        assert_eq!(of_copy(&[claim(3, "a", true), claim(65_539, "b", false)]), Plan::Take(131_075));
        // A copy of a copy.
        let before = [node(0, 3, "a"), node(100, 65_539, "b")];
        let claims = [claim(3, "b", true), claim(65_539, "b", true)];
        assert_eq!(decide(&claims, of(&before, &node(200, 65_539, ""), false)), Plan::Take(131_075));
    }
}
