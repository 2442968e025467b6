//! ClickHouse's numbers of errors, as far as something is known to follow from one.
//!
//! What a number means: `SELECT errorCodeToName(60)`. Which are here was chosen from all that 26.7 has; older ones have
//! the same numbers.

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It passes: again, later.
    Retry,
    /// Somebody has to change something. Nothing is dropped meanwhile.
    Pause,
    /// It is about the events that were sent: the same bytes will fail again.
    Data,
}

/// What is known of some errors.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) class: Class,
    codes: &'static [i32],
    /// What to do, for people.
    advice: &'static str,
}

const fn retry(codes: &'static [i32]) -> Rule {
    Rule { class: Class::Retry, codes, advice: "" }
}

const fn pause(codes: &'static [i32], advice: &'static str) -> Rule {
    Rule { class: Class::Pause, codes, advice }
}

const RULES: [Rule; 14] = [
    // The bytes were cut or spoiled on their way: end of file where more was to come, checksums, unpacking.
    retry(&[3, 32, 40, 95, 96, 271, 354, 561]),
    // It took too long, was cancelled, or the server stops or starts.
    retry(&[159, 160, 209, 236, 394, 667, 677, 695, 696, 722, 733, 735]),
    // It has too much to do, or too little memory, threads, connections, quota; a part or another query is in the way.
    retry(&[
        173, 201, 202, 203, 216, 241, 252, 364, 373, 384, 439, 473, 574, 692, 700, 738, 745, 749, 762, 763, 776, 777,
        778,
    ]),
    // Its disks are full or fail, or what it keeps elsewhere.
    retry(&[74, 75, 76, 77, 204, 243, 425, 499, 500, 693]),
    // Its own network, its other replicas and shards, or Keeper: a replica that has lost Keeper is read-only until it
    // is back. 319 is an insert of which Keeper has not said whether it is there.
    retry(&[198, 210, 225, 242, 244, 254, 265, 279, 285, 286, 289, 297, 319, 369, 410, 519, 904, 999]),
    pause(&[60, 81], "create the database and the table as hitlog's documents have them"),
    // Columns and types that do not fit the block, or a view that does not fit the table.
    pause(
        &[7, 8, 9, 10, 16, 20, 44, 50, 53, 70, 122, 342, 772],
        "the table or a view on it has other columns than hitlog's documents have: compare with SHOW CREATE TABLE",
    ),
    pause(
        &[36, 42, 43, 46, 47, 48, 62, 63, 73, 80, 115, 344, 446, 456, 457],
        "hitlog asks for something that this version of ClickHouse does not know or its settings do not allow: is it \
         one that hitlog ships to?",
    ),
    pause(&[192, 193, 194, 195, 516, 720, 767], "check the user and its password, and from where it may come"),
    pause(&[164], "the user is readonly: let it write and change settings, or use another"),
    pause(
        &[291, 392, 495, 497, 511, 620, 673],
        "grant the user what docs/clickhouse.md lists under \"Users and rights\", or have an administrator make what \
         is missing",
    ),
    pause(
        &[158, 180, 199, 229, 307, 396, 452, 471, 472],
        "the user's profile or quota forbids what hitlog needs: change it, or use a user of hitlog's own",
    ),
    // What the table is does not go with inserts as hitlog makes them.
    pause(
        &[370, 397, 420, 455, 549, 701, 712, 727, 764, 774],
        "the table or what stands behind it does not take what hitlog sends: compare with hitlog's documents",
    ),
    // Texts and numbers that the table's constraints, or a view that reads them, do not take.
    Rule {
        class: Class::Data,
        codes: &[6, 27, 33, 38, 41, 72, 117, 128, 131, 153, 321, 349, 395, 407, 441, 467, 469, 632, 691],
        advice: "",
    },
];

/// Those with which a request is refused before anything is done for it, because too many others are there.
const OF_THE_DOOR: [i32; 6] = [202, 700, 745, 749, 762, 763];

/// What is known of an error.
pub(super) fn rule(code: i32) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.codes.contains(&code))
}

/// Whether nothing was begun when it came.
pub(super) fn is_of_the_door(code: i32) -> bool {
    OF_THE_DOOR.contains(&code)
}

/// What to do about an error, as it follows its text.
pub(super) fn advice(code: i32) -> String {
    match rule(code) {
        Some(rule) if !rule.advice.is_empty() => format!(" ({})", rule.advice),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_error_is_known_once() {
        let all: Vec<_> = RULES.iter().flat_map(|rule| rule.codes).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
        assert!(RULES.iter().all(|rule| (rule.class == Class::Pause) != rule.advice.is_empty()));
    }

    #[test]
    fn errors_of_the_design_have_their_class() {
        let class = |code: &i32| rule(*code).map(|rule| rule.class);
        for (codes, known) in [
            (&[159, 202, 241, 242, 252, 319][..], Class::Retry),
            (&[16, 60, 81, 115, 164, 497, 516], Class::Pause),
            (&[27, 33, 117, 469], Class::Data),
        ] {
            assert!(codes.iter().all(|code| class(code) == Some(known)), "{codes:?}");
        }
        assert!(OF_THE_DOOR.iter().all(|code| class(code) == Some(Class::Retry)));
    }
}
