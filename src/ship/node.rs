//! Under which number this data directory ships: registered at the target, so that no two ship under one.
//!
//! An event is known there by its node and its sequence. A start from a copy gives sequences again that the original
//! has given, so it takes a number of its own: the number of the setting, plus 65,536 for each start from a copy. The
//! numbers that it had before pass to it: the original, if it still runs, sees that and pauses.

use super::{
    server::{Claim, Server},
    trouble::Trouble,
};
use crate::store::ShipNode;

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

/// What to register for the newest node of a directory, by what is registered. `before` are the nodes that it had
/// before its last start from a copy; `is_used` tells whether anything may have been sent under the newest one.
pub(super) fn plan(claims: &[Claim], before: &[ShipNode], newest: &ShipNode, is_used: bool) -> Plan {
    let holder =
        |node: u32| claims.iter().find(|of| of.node == node && of.holds && of.instance != newest.instance);
    let refused = |other: &Claim| {
        Plan::Refuse(format!(
            "another hitlog ships as node {} (it is registered as {}): give each its own number with the setting node, \
             and restart",
            newest.node, other.instance
        ))
    };
    if !newest.instance.is_empty() && !is_used {
        // How far its registration has come is not known. To register once more does no harm.
        return holder(newest.node).map_or(Plan::Take(newest.node), refused);
    }
    if !newest.instance.is_empty() {
        return match claims.iter().find(|claim| claim.node == newest.node && claim.instance == newest.instance) {
            Some(claim) if claim.holds => Plan::Held,
            Some(_) => Plan::Refuse(format!(
                "a hitlog that was started from a copy of this data directory ships as node {} now. Two must not: let \
                 one of them go on, and have the other begin with an empty data directory and a node of its own",
                newest.node
            )),
            None => Plan::Refuse(format!(
                "the target does not know this hitlog, which has shipped to it as node {}: it is another server, or \
                 its tables were dropped. Restore them, or set ship_url to the server that has them. `hitlog ship \
                 resume --from-start` ships all events that are kept once more, to tables that have none of them",
                newest.node
            )),
        };
    }
    if before.is_empty() {
        return holder(newest.node).map_or(Plan::Take(newest.node), refused);
    }
    // A number that anybody ever had stays theirs: its sequences are taken.
    let is_taken = |node: u32| claims.iter().any(|claim| claim.node == node);
    let mut numbers = std::iter::successors(Some(newest.node), |node| node.checked_add(OF_COPY));
    match numbers.find(|node| *node >= OF_COPY && !is_taken(*node)) {
        Some(node) => Plan::Take(node),
        None => Plan::Refuse("no number is left for another start from a copy: set node to another one".into()),
    }
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
    for earlier in before {
        server.claim(&Claim { node: earlier.node, instance: earlier.instance.clone(), holds: false }).await?;
        server.claim(&Claim { node: earlier.node, instance: instance.into(), holds: true }).await?;
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

    #[test]
    fn no_two_hold_one_number() {
        let refused = |plan: Plan, words: &str| match plan {
            Plan::Refuse(why) => assert!(why.contains(words), "{why}"),
            plan => panic!("{plan:?}"),
        };
        let plan = |claims: &[Claim], before: &[ShipNode], newest: &ShipNode| plan(claims, before, newest, true);
        assert_eq!(plan(&[], &[], &node(0, 3, "")), Plan::Take(3));
        assert_eq!(plan(&[claim(3, "a", false), claim(4, "b", true)], &[], &node(0, 3, "")), Plan::Take(3));
        refused(plan(&[claim(3, "a", true)], &[], &node(0, 3, "")), "another hitlog ships as node 3");
        assert_eq!(plan(&[claim(3, "a", true)], &[], &node(0, 3, "a")), Plan::Held);
        refused(plan(&[], &[], &node(0, 3, "a")), "does not know this hitlog");
        refused(plan(&[claim(3, "a", false), claim(3, "b", true)], &[], &node(0, 3, "a")), "from a copy of this");
    }

    #[test]
    fn a_registration_that_was_cut_off_goes_on_under_its_own_name() {
        let plan = |claims: &[Claim], before: &[ShipNode]| plan(claims, before, &node(9, 3, "a"), false);
        for claims in [&[][..], &[claim(3, "a", true)], &[claim(3, "a", false), claim(3, "b", false)]] {
            assert_eq!(plan(claims, &[]), Plan::Take(3), "{claims:?}");
            assert_eq!(plan(claims, &[node(0, 2, "z")]), Plan::Take(3), "{claims:?}");
        }
        assert!(matches!(plan(&[claim(3, "a", true), claim(3, "b", true)], &[]), Plan::Refuse(_)));
    }

    #[test]
    fn a_start_from_a_copy_takes_a_number_that_nobody_ever_had() {
        let before = [node(0, 3, "a")];
        let of_copy = |claims: &[Claim]| plan(claims, &before, &node(100, 3, ""), true);
        assert_eq!(of_copy(&[claim(3, "a", true)]), Plan::Take(65_539));
        assert_eq!(of_copy(&[claim(3, "a", true), claim(65_539, "b", false)]), Plan::Take(131_075));
        // A copy of a copy.
        let before = [node(0, 3, "a"), node(100, 65_539, "b")];
        let claims = [claim(3, "b", true), claim(65_539, "b", true)];
        assert_eq!(plan(&claims, &before, &node(200, 65_539, ""), true), Plan::Take(131_075));
    }
}
