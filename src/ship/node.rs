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
const TAKEN_OVER_PAUSE: Duration = Duration::from_secs(15);
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

/// What to register for the newest node of a directory, by what is registered.
pub(super) fn plan(claims: &[Claim], directory: Directory<'_>) -> Plan {
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
                 its tables were dropped. Restore them, or set ship_url to the server that has them. `hitlog ship \
                 resume --from-start` ships all events that are kept once more, to tables that have none of them",
                newest.node
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

/// Whether an instance, and nobody else, holds a number; and otherwise why not.
pub(super) fn hold(claims: &[Claim], node: u32, instance: &str) -> Result<(), String> {
    let holders = claims.iter().filter(|claim| claim.node == node && claim.holds);
    let (mut own, mut others) = (false, false);
    holders.for_each(|claim| if claim.instance == instance { own = true } else { others = true });
    if own && !others { Ok(()) } else { Err(taken_over(node)) }
}

fn taken_over(node: u32) -> String {
    format!(
        "a hitlog that was started from a copy of this data directory ships as node {node} now. Two must not: let one \
         of them go on, and have the other begin with an empty data directory and a node of its own"
    )
}

/// Registers a node's number for an instance, and that those before pass to it.
pub(super) async fn take(server: &Server, node: u32, instance: &str, before: &[ShipNode]) -> Result<(), Trouble> {
    let own = Claim { node, instance: instance.into(), holds: true };
    server.claim(&own).await?;
    let others: Vec<_> =
        server.claims().await?.into_iter().filter(|claim| claim.node == node && claim.instance != instance).collect();
    if others.iter().any(|claim| claim.holds) {
        // Two have taken it in the same moment: neither keeps it.
        server.claim(&Claim { holds: false, ..own }).await?;
        return Err(Trouble::Pause(format!(
            "another hitlog has registered as node {node} in this moment: give each its own number with the setting \
             node, and restart"
        )));
    }
    let claims = server.claims().await?;
    for earlier in before {
        // The original's, and those of others that were started from copies of it.
        for other in claims.iter().filter(|of| of.node == earlier.node && of.holds && of.instance != instance) {
            server.claim(&Claim { holds: false, ..other.clone() }).await?;
        }
        server.claim(&Claim { node: earlier.node, instance: instance.into(), holds: true }).await?;
    }
    if !before.is_empty() {
        // They look before they send, unless they have just looked.
        sleep(TAKEN_OVER_PAUSE).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(node: u32, instance: &str, holds: bool) -> Claim {
        Claim { node, instance: instance.into(), holds }
    }

    fn node(first_sequence: u64, node: u32, instance: &str) -> ShipNode {
        ShipNode { first_sequence, node, instance: instance.into() }
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
        let new = |claims: &[Claim]| plan(claims, of(&[], &node(0, 3, ""), false));
        assert_eq!(new(&[]), Plan::Take(3));
        assert_eq!(new(&[claim(3, "a", false), claim(4, "b", true)]), Plan::Take(3));
        refused(new(&[claim(3, "a", true)]), "another hitlog ships as node 3");
        let known = |claims: &[Claim]| plan(claims, of(&[], &node(0, 3, "a"), true));
        assert_eq!(known(&[claim(3, "a", true)]), Plan::Held);
        refused(known(&[]), "does not know this hitlog");
        refused(known(&[claim(3, "a", false), claim(3, "b", true)]), "from a copy of this");
    }

    #[test]
    fn who_was_cut_off_while_it_took_a_number_takes_it_again() {
        let cut_off = |claims: &[Claim]| plan(claims, of(&[], &node(0, 3, "a"), false));
        assert_eq!(cut_off(&[]), Plan::Take(3));
        assert_eq!(cut_off(&[claim(3, "a", false)]), Plan::Take(3));
        assert_eq!(cut_off(&[claim(3, "a", true)]), Plan::Held);
        assert!(matches!(cut_off(&[claim(3, "a", false), claim(3, "b", true)]), Plan::Refuse(_)));
        // Of a copy, which takes over what was before as well.
        let before = [node(0, 3, "a")];
        let cut_off = |claims: &[Claim]| plan(claims, of(&before, &node(100, 65_539, "b"), false));
        assert_eq!(cut_off(&[claim(3, "a", true)]), Plan::Take(65_539));
        assert_eq!(cut_off(&[claim(3, "a", true), claim(65_539, "b", true)]), Plan::Take(65_539));
        assert_eq!(cut_off(&[claim(3, "a", true), claim(65_539, "c", true)]), Plan::Take(131_075));
        assert_eq!(cut_off(&[claim(3, "a", false), claim(3, "b", true), claim(65_539, "b", true)]), Plan::Held);
    }

    #[test]
    fn a_start_from_a_copy_takes_a_number_that_nobody_ever_had() {
        let before = [node(0, 3, "a")];
        let of_copy = |claims: &[Claim]| plan(claims, of(&before, &node(100, 3, ""), false));
        assert_eq!(of_copy(&[claim(3, "a", true)]), Plan::Take(65_539));
        assert_eq!(of_copy(&[claim(3, "a", true), claim(65_539, "b", false)]), Plan::Take(131_075));
        // A copy of a copy.
        let before = [node(0, 3, "a"), node(100, 65_539, "b")];
        let claims = [claim(3, "b", true), claim(65_539, "b", true)];
        assert_eq!(plan(&claims, of(&before, &node(200, 65_539, ""), false)), Plan::Take(131_075));
    }
}
