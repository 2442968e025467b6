//! How much one transaction takes. Pure: numbers in, a choice out.

/// Bounds of a group; their values and reasons stand in the configuration. A single request may exceed them, and
/// then is a group of its own: a request's events are committed together.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// Events after which no further request is taken.
    pub events_max: usize,
    /// Bytes after which no further request is taken.
    pub bytes_max: usize,
}

impl GroupLimits {
    /// A group that has taken nothing yet.
    pub(super) fn empty(self) -> GroupSize {
        GroupSize { limits: self, events: 0, bytes: 0 }
    }
}

/// How large a group has grown.
pub(super) struct GroupSize {
    limits: GroupLimits,
    events: usize,
    bytes: usize,
}

impl GroupSize {
    /// Counts a request in, and says whether the group may take another.
    pub(super) fn add(&mut self, events: usize, bytes: usize) -> bool {
        self.events += events;
        self.bytes += bytes;
        self.events < self.limits.events_max && self.bytes < self.limits.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::GroupLimits;

    #[test]
    fn a_group_ends_at_either_bound() {
        let limits = GroupLimits { events_max: 10, bytes_max: 1_000 };
        for (requests, wanted) in [
            (&[(1, 10), (8, 10)][..], &[true, true][..]),
            (&[(9, 10), (1, 10)], &[true, false]),
            (&[(1, 999), (1, 1)], &[true, false]),
            (&[(500, 90_000)], &[false]),
        ] {
            let mut size = limits.empty();
            let answers: Vec<bool> = requests.iter().map(|&(events, bytes)| size.add(events, bytes)).collect();
            assert_eq!(answers, wanted, "{requests:?}");
        }
    }
}
