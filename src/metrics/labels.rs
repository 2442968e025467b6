//! The values that labels take: enums, never what a client says, so the number of series is bounded. Only the label of
//! routes comes from elsewhere, their table.

/// Defines an enum whose values are label values, with `ALL`, `as_str` and an index into arrays of handles.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = concat!("`", $text, "`\n")] $(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as it stands in the label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

label! {
    /// Why events were rejected: the client's fault.
    Rejected {
        /// Not JSON that hitlog takes.
        Malformed = "malformed_json",
        /// Breaks the rules of an event or a batch.
        Invalid = "validation",
        /// The tracking code belongs to no website.
        UnknownWebsite = "unknown_website",
        /// The page is of none of the hosts that its website takes events of.
        Host = "host",
        /// The visitor sends `Sec-GPC: 1`, and the website takes no events of those who do.
        Gpc = "gpc",
        /// The body is over its limit.
        TooLarge = "too_large",
        /// The body came too slowly.
        Timeout = "timeout",
        /// The client went away before the end of the body.
        BrokenOff = "broken_off",
        /// The `Content-Encoding` is not one that hitlog takes.
        Encoding = "unsupported_encoding",
    }
}

label! {
    /// Why events were refused for now; they are definitely not stored.
    Shed {
        /// The queue is full.
        QueueFull = "queue_full",
        /// The bodies being read already take all the memory they may.
        BodyMemory = "body_memory",
        /// The answers that wait for their clients already take all the memory they may.
        AnswerMemory = "answer_memory",
        /// The disk is full.
        StorageFull = "storage_full",
        /// It could not be looked up whether they are stored already.
        LookUp = "look_up",
        /// The writer has stopped or is stopping.
        Stopping = "stopping",
    }
}

label! {
    /// What was odd about the parameters of a read that was answered all the same.
    QueryWarning {
        /// `from` or `to` looks like seconds and was read as milliseconds.
        TimestampLooksLikeSeconds = "TIMESTAMP_LOOKS_LIKE_SECONDS",
    }
}

label! {
    /// What is odd about events that are stored all the same.
    Warned {
        /// The timestamp is before 2000, and would be a likely time if it were seconds.
        TimestampLooksLikeSeconds = "TIMESTAMP_LOOKS_LIKE_SECONDS",
        /// The timestamp is before 2000.
        TimestampBefore2000 = "TIMESTAMP_BEFORE_2000",
        /// The timestamp was too far ahead and was set to the arrival.
        TimestampAhead = "TIMESTAMP_AHEAD",
        /// The referrer was no URL that is taken and was set to null.
        ReferrerDropped = "REFERRER_DROPPED",
        /// Half a surrogate pair became U+FFFD.
        TextRepaired = "TEXT_REPAIRED",
        /// The page is of none of its website's hosts.
        HostNotListed = "HOST_NOT_LISTED",
    }
}

label! {
    /// What became of an event whose visitor sends `Sec-GPC: 1`, as its website has it.
    GpcAction {
        /// It was stored as it is.
        Ignored = "ignored",
        /// It was stored without what would tell who the visitor is.
        Anonymized = "anonymized",
        /// It was refused.
        Dropped = "dropped",
    }
}

label! {
    /// The request's method.
    Method {
        Get = "GET",
        Head = "HEAD",
        Post = "POST",
        Put = "PUT",
        Delete = "DELETE",
        Options = "OPTIONS",
        Other = "other",
    }
}

label! {
    /// The class of the answer's status.
    StatusClass {
        Success = "2xx",
        Redirect = "3xx",
        Client = "4xx",
        Server = "5xx",
    }
}

label! {
    /// Why a connection ended.
    Closed {
        /// The client closed it, or asked for that.
        Client = "client",
        /// The head of a request came too slowly.
        HeadTimeout = "head_timeout",
        /// No request came for too long.
        Idle = "idle",
        /// The client did not read its answer, or too slowly.
        WriteStalled = "write_stalled",
        /// An answer took longer than it may, or could not be made to its end.
        BrokenOff = "broken_off",
        /// Others needed what it held: a connection, buffers or memory.
        GaveWay = "gave_way",
        /// Connections were short, and its client address held its share of them.
        OverShare = "over_share",
        /// The head of a request was malformed or too large.
        Malformed = "malformed",
        /// The socket failed.
        Error = "error",
        /// hitlog is stopping.
        Drain = "drain",
    }
}

label! {
    /// The states of segments.
    SegmentLabel {
        /// Made ahead, empty.
        Prepared = "prepared",
        /// Being written.
        Active = "active",
        /// Full, waiting for its indexes.
        Unsealed = "unsealed",
        /// Indexed.
        Sealed = "sealed",
        /// Sealed, but not what was written: in no answer.
        Damaged = "damaged",
    }
}

label! {
    /// How something ended that either works or does not.
    Outcome {
        Ok = "ok",
        Failed = "failed",
    }
}

label! {
    /// What became of a line of the log.
    LineOutcome {
        /// Standard error took it.
        Written = "written",
        /// It did not, or not in time.
        Dropped = "dropped",
    }
}

label! {
    /// Who ran a checkpoint.
    CheckpointRunner {
        /// The connection beside the writer.
        Background = "background",
        /// The writer, between two groups.
        Writer = "writer",
    }
}

label! {
    /// How a checkpoint ended.
    CheckpointOutcome {
        /// All of the write-ahead log is copied.
        Complete = "complete",
        /// A reader, or what was committed meanwhile, kept a part of it.
        Partial = "partial",
        /// Somebody else was copying it.
        Busy = "busy",
        /// There was no room to copy it to.
        NoRoom = "no_room",
        /// The disk failed.
        Failed = "failed",
    }
}

label! {
    /// How a read ended.
    ReadOutcome {
        /// With an answer.
        Answered = "answered",
        /// With an error of the storage.
        Failed = "failed",
        /// [`ReadRefused::PoolFull`]
        PoolFull = "pool_full",
        /// [`ReadRefused::Deadline`]
        Deadline = "deadline",
        /// [`ReadRefused::Memory`]
        Memory = "memory",
        /// [`ReadRefused::WalCap`]
        WalCap = "wal_cap",
        /// [`ReadRefused::Keys`]
        Keys = "keys",
        /// [`ReadRefused::NoRoom`]
        NoRoom = "no_room",
        /// [`ReadRefused::Gone`]
        Gone = "gone",
    }
}

/// Why a read was refused or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadRefused {
    /// Every reader is busy and the line before them is full.
    PoolFull,
    /// The read took longer than it may.
    Deadline,
    /// The pages being built or sent already take all the memory they may.
    Memory,
    /// The write-ahead log had grown over its cap, and the read stood in the way of the checkpoint.
    WalCap,
    /// The keys of a segment were damaged; they are made anew.
    Keys,
    /// The disk is so full that there is no room for the index of a write-ahead log.
    NoRoom,
    /// Whoever asked has gone away.
    Gone,
}

impl From<ReadRefused> for ReadOutcome {
    fn from(reason: ReadRefused) -> Self {
        match reason {
            ReadRefused::PoolFull => Self::PoolFull,
            ReadRefused::Deadline => Self::Deadline,
            ReadRefused::Memory => Self::Memory,
            ReadRefused::WalCap => Self::WalCap,
            ReadRefused::Keys => Self::Keys,
            ReadRefused::NoRoom => Self::NoRoom,
            ReadRefused::Gone => Self::Gone,
        }
    }
}

label! {
    /// What became of an attempt to ship a range.
    ShipOutcome {
        /// The target has stored it, and said so.
        Stored = "stored",
        /// The target has refused it.
        Refused = "refused",
        /// Nobody knows: the connection was cut, or it took too long.
        Unknown = "unknown",
    }
}
