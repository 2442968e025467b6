//! Errors and warnings: the one table from error to status, and how each is told.

use std::{borrow::Cow, time::Duration};

use hyper::{StatusCode, header::RETRY_AFTER};
use serde::{Serialize, Serializer};

use super::{
    body::BodyError,
    obstacles::{Obstacles, seconds_to_wait},
    response::{RETRY_AFTER_DEFAULT, Response, json_of},
};
use crate::{
    event::{Faults, GPC_REFUSED, Rejection, Warnings, time::time_text},
    metrics::{ReadRefused, Shed},
    queue::{CommitError, Overloaded},
    store::{CatalogError, ReadError},
};

/// The contract's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    ValidationError,
    MalformedJson,
    Unauthorized,
    Forbidden,
    ForbiddenOrigin,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    Conflict,
    PayloadTooLarge,
    UnsupportedEncoding,
    #[allow(dead_code, reason = "clients are written against the whole table")]
    TooManyRequests,
    HeadersTooLarge,
    InternalError,
    Overloaded,
    StorageFull,
    CommitUnknown,
}

impl ErrorCode {
    /// The table: the code on the wire, and its status.
    fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::ValidationError => ("VALIDATION_ERROR", StatusCode::BAD_REQUEST),
            Self::MalformedJson => ("MALFORMED_JSON", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("UNAUTHORIZED", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN),
            Self::ForbiddenOrigin => ("FORBIDDEN_ORIGIN", StatusCode::FORBIDDEN),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
            Self::NotAcceptable => ("NOT_ACCEPTABLE", StatusCode::NOT_ACCEPTABLE),
            Self::RequestTimeout => ("REQUEST_TIMEOUT", StatusCode::REQUEST_TIMEOUT),
            Self::Conflict => ("CONFLICT", StatusCode::CONFLICT),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedEncoding => ("UNSUPPORTED_ENCODING", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::TooManyRequests => ("TOO_MANY_REQUESTS", StatusCode::TOO_MANY_REQUESTS),
            Self::HeadersTooLarge => ("HEADERS_TOO_LARGE", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Self::InternalError => ("INTERNAL_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
            Self::Overloaded => ("OVERLOADED", StatusCode::SERVICE_UNAVAILABLE),
            Self::StorageFull => ("STORAGE_FULL", StatusCode::SERVICE_UNAVAILABLE),
            Self::CommitUnknown => ("COMMIT_UNKNOWN", StatusCode::SERVICE_UNAVAILABLE),
        }
    }

    /// The code on the wire.
    pub(super) fn as_str(self) -> &'static str {
        self.row().0
    }
}

/// An error as the API shows it.
#[derive(Serialize)]
struct ErrorJson<'a> {
    error: &'static str,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    form_errors: &'a [Cow<'static, str>],
    #[serde(serialize_with = "by_field")]
    field_errors: &'a Faults,
}

fn by_field<S: Serializer>(faults: &Faults, serializer: S) -> Result<S::Ok, S::Error> {
    let fields = faults.fields.iter().map(|(field, texts)| (*field, texts));
    let places = faults.places.iter().map(|(place, texts)| (place.as_str(), texts));
    serializer.collect_map(fields.chain(places))
}

impl<'a> ErrorJson<'a> {
    fn new(code: ErrorCode, message: impl Into<Cow<'a, str>>, faults: Option<&'a Faults>) -> Self {
        let details = faults.map(|faults| Details { form_errors: &faults.form, field_errors: faults });
        Self { error: code.as_str(), message: message.into(), details }
    }
}

/// An item of a batch that was refused, as the API shows it.
#[derive(Serialize)]
struct ItemErrorJson<'a> {
    index: usize,
    #[serde(flatten)]
    error: ErrorJson<'a>,
}

impl<'a> ItemErrorJson<'a> {
    fn new(index: usize, rejection: &'a Rejection, with_details: bool) -> Self {
        let error = match rejection {
            Rejection::Malformed(message) => ErrorJson::new(ErrorCode::MalformedJson, message, None),
            Rejection::Invalid(faults) | Rejection::OtherHost(faults) => {
                ErrorJson::new(ErrorCode::ValidationError, "Invalid event data", with_details.then_some(faults))
            }
            Rejection::Gpc => ErrorJson::new(ErrorCode::Forbidden, GPC_REFUSED, None),
            Rejection::UnknownWebsite(code) => {
                let message = format!("Website with tracking code \"{code}\" not found");
                ErrorJson::new(ErrorCode::NotFound, message, None)
            }
        };
        Self { index, error }
    }
}

/// The member `errors` of a batch's answer: the items that were refused, of which the first `detailed_max` are told
/// with their details. Nothing if there are none.
pub(super) fn item_errors(refused: &[(usize, Rejection)], detailed_max: usize) -> Vec<u8> {
    struct Items<'a>(&'a [(usize, Rejection)], usize);
    impl Serialize for Items<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let items = self.0.iter().enumerate();
            serializer.collect_seq(items.map(|(at, (index, fault))| ItemErrorJson::new(*index, fault, at < self.1)))
        }
    }
    #[derive(Serialize)]
    struct Members<'a> {
        errors: Items<'a>,
    }
    if refused.is_empty() { Vec::new() } else { members(&Members { errors: Items(refused, detailed_max) }) }
}

/// Something odd about what was done all the same, as the API shows it.
#[derive(Serialize)]
pub(super) struct WarningJson<'a> {
    /// The place in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) index: Option<usize>,
    pub(super) field: &'a str,
    pub(super) code: &'static str,
    pub(super) message: &'a str,
}

/// The members of an answer that tell what is odd about it, of which `omitted` are not told. Nothing if nothing is.
pub(super) fn warning_members<'a>(warnings: impl Iterator<Item = WarningJson<'a>>, omitted: u64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Members<'a> {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        warnings: Vec<WarningJson<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        warnings_omitted: Option<u64>,
    }
    let warnings: Vec<_> = warnings.collect();
    if warnings.is_empty() && omitted == 0 {
        return Vec::new();
    }
    members(&Members { warnings, warnings_omitted: Some(omitted).filter(|omitted| *omitted > 0) })
}

/// The same of stored events, those of a batch with their place in it.
pub(super) fn event_warnings(warnings: &Warnings, in_batch: bool) -> Vec<u8> {
    let told = warnings.told().iter().map(|warning| WarningJson {
        index: in_batch.then_some(warning.index),
        field: warning.field,
        code: warning.code.as_str(),
        message: &warning.message,
    });
    warning_members(told, warnings.untold())
}

/// The members of an object, each after a comma: for an answer whose other members are written by hand.
pub(super) fn members(object: &impl Serialize) -> Vec<u8> {
    match serde_json::to_vec(object) {
        Ok(mut text) => {
            if let Some(brace) = text.first_mut() {
                *brace = b',';
            }
            text.pop();
            text
        }
        Err(failure) => {
            tracing::error!(%failure, "a part of a response could not be written as JSON");
            Vec::new()
        }
    }
}

/// `{"error", "message"}` with the code's status.
pub(super) fn error(code: ErrorCode, message: &str) -> Response {
    json_of(code.row().1, &ErrorJson::new(code, message, None))
}

/// An error with `Retry-After`: for everything that is worth trying again, after about this long.
pub(super) fn retry_later(code: ErrorCode, message: &str, after: Duration) -> Response {
    let mut response = error(code, message);
    response.headers_mut().insert(RETRY_AFTER, seconds_to_wait(after, rand::random()).into());
    response
}

/// VALIDATION_ERROR with every fault.
pub(super) fn invalid(message: &str, faults: &Faults) -> Response {
    json_of(StatusCode::BAD_REQUEST, &ErrorJson::new(ErrorCode::ValidationError, message, Some(faults)))
}

/// Tells why a body as a whole, or a single event, was rejected.
pub(super) fn rejection(what: &str, rejection: &Rejection) -> Response {
    match rejection {
        Rejection::Malformed(message) => error(ErrorCode::MalformedJson, message),
        Rejection::Invalid(faults) | Rejection::OtherHost(faults) => invalid(&format!("Invalid {what} data"), faults),
        Rejection::Gpc => error(ErrorCode::Forbidden, GPC_REFUSED),
        Rejection::UnknownWebsite(_) => error(ErrorCode::NotFound, "Website with this tracking code not found"),
    }
}

/// The response for a body that was not read, on any route.
pub(super) fn body_error(failure: &BodyError, retry_after: Duration) -> Response {
    match failure {
        BodyError::TooLarge(bytes_max) => error(
            ErrorCode::PayloadTooLarge,
            &format!("The body is larger than {bytes_max} bytes (after decompression); send less at once"),
        ),
        BodyError::Timeout => error(ErrorCode::RequestTimeout, "The body came too slowly; nothing of it is stored"),
        BodyError::Encoding => {
            error(ErrorCode::UnsupportedEncoding, "Content-Encoding may be gzip, deflate, br or zstd, one at most")
        }
        BodyError::Damaged(what) => error(ErrorCode::MalformedJson, &format!("The body cannot be read: {what}")),
        BodyError::BrokenOff => error(ErrorCode::MalformedJson, "The body ends early; nothing of it is stored"),
        BodyError::Memory => overloaded(Overloaded { reason: Shed::BodyMemory, retry_after }),
    }
}

/// Nothing may be stored of events that cannot be looked for among those that are stored: it might be stored twice.
const NOT_LOOKED_UP: &str = "It can't be looked up at the moment whether these events are stored already; nothing of \
                             this request was stored now. Send it again later";

/// Tells that the queue took nothing of a request.
pub(super) fn overloaded(refusal: Overloaded) -> Response {
    let (code, message) = match refusal.reason {
        Shed::StorageFull => (ErrorCode::StorageFull, "The disk is full; nothing of this request is stored"),
        Shed::Stopping => (ErrorCode::Overloaded, "hitlog is stopping; nothing of this request is stored"),
        Shed::BodyMemory => {
            (ErrorCode::Overloaded, "Too many bodies are being received; nothing of this request is stored or changed")
        }
        Shed::LookUp => (ErrorCode::Overloaded, NOT_LOOKED_UP),
        Shed::QueueFull | Shed::AnswerMemory => {
            (ErrorCode::Overloaded, "More events are coming in than can be stored; nothing of this request is stored")
        }
    };
    retry_later(code, message, refusal.retry_after)
}

/// Tells that a queued request failed.
pub(super) fn commit_error(failure: CommitError, retry_after: Duration) -> Response {
    match failure {
        CommitError::StorageFull => {
            retry_later(ErrorCode::StorageFull, "The disk is full; nothing of this request is stored", retry_after)
        }
        CommitError::Outdated => retry_later(ErrorCode::Overloaded, NOT_LOOKED_UP, retry_after),
        CommitError::Unknown => retry_later(
            ErrorCode::CommitUnknown,
            "The storage failed while this request was being committed; it may or may not be stored. Sent again, what \
             has an eventId or an Idempotency-Key is stored once",
            retry_after,
        ),
    }
}

/// Tells that a read failed or was refused.
pub(super) fn read_error(failure: &ReadError) -> Response {
    let message = match failure {
        ReadError::Refused(ReadRefused::PoolFull) => "Too many reads are waiting; try again later",
        ReadError::Refused(ReadRefused::Deadline) => "The read took too long; ask for less, or try again later",
        ReadError::Refused(ReadRefused::Memory) => "The answers being sent take too much memory; ask for less",
        ReadError::Refused(ReadRefused::Gone) => "Nobody waits for this read any more",
        ReadError::Refused(ReadRefused::WalCap) => "The read was interrupted so that writing could go on; try again",
        ReadError::Refused(ReadRefused::Keys) => "The keys of some events were damaged and are made anew; try again",
        ReadError::Refused(ReadRefused::NoRoom) => {
            "The disk is full, and some of what is stored waits for room; try again"
        }
        ReadError::Stopped => "hitlog is stopping",
        ReadError::Storage(_) | ReadError::Keys(_) | ReadError::StorageFull(_) => {
            tracing::error!(error = %failure, "a read failed");
            return error(ErrorCode::InternalError, "The storage could not be read; see hitlog's log");
        }
    };
    retry_later(ErrorCode::Overloaded, message, RETRY_AFTER_DEFAULT)
}

/// Tells that a website could not be changed.
pub(super) fn catalog_error(failure: &CatalogError, obstacles: &Obstacles) -> Response {
    match failure {
        CatalogError::NotFound => error(ErrorCode::NotFound, "Website not found"),
        CatalogError::DomainTaken => error(ErrorCode::Conflict, "A website with this domain exists already"),
        CatalogError::CodesFull(next_end) => error(
            ErrorCode::Conflict,
            &format!(
                "As many earlier tracking codes of this website are valid as may be; nothing was changed. The next one \
                 ends at {}; with \"previousValidSeconds\": 0 the code of now ends at once, and none is added",
                time_text(*next_end)
            ),
        ),
        CatalogError::Busy | CatalogError::Stale => {
            retry_later(ErrorCode::Overloaded, "Too many changes are waiting; nothing was changed", RETRY_AFTER_DEFAULT)
        }
        CatalogError::ErasuresFull => retry_later(
            ErrorCode::Overloaded,
            "As many erasures are under way as may be; nothing was changed. Wait for some, or raise erasures_max",
            obstacles.erasures_full.meet(),
        ),
        CatalogError::StorageFull => {
            retry_later(ErrorCode::StorageFull, "The disk is full; nothing was changed", obstacles.storage_full.meet())
        }
        CatalogError::Unknown => retry_later(
            ErrorCode::CommitUnknown,
            "The storage failed while the change was being committed; it may or may not be stored",
            RETRY_AFTER_DEFAULT,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a response.
    fn text(response: Response) -> String {
        String::from_utf8(response.into_body().into_bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn errors_are_written_as_ever() {
        let mut faults = Faults::of_form("No \"way\"");
        faults.add("url", "Required");
        faults.add("os", "Too\tlong");
        faults.add("os", "Größe\u{1}");
        faults.add_at("goals[0].page", "Too long");
        let details = r#""details":{"formErrors":["No \"way\""],"#.to_owned()
            + r#""fieldErrors":{"url":["Required"],"os":["Too\tlong","Größe\u0001"],"goals[0].page":["Too long"]}"#;
        for (response, wanted) in [
            (
                error(ErrorCode::NotFound, "Not \\ here\n"),
                r#"{"error":"NOT_FOUND","message":"Not \\ here\n"}"#.to_owned(),
            ),
            (
                invalid("Invalid event data", &faults),
                format!(r#"{{"error":"VALIDATION_ERROR","message":"Invalid event data",{details}}}}}"#),
            ),
            (
                invalid("Invalid query", &Faults::default()),
                r#"{"error":"VALIDATION_ERROR","message":"Invalid query","details":{"formErrors":[],"fieldErrors":{}}}"#
                    .to_owned(),
            ),
        ] {
            assert_eq!(text(response), wanted);
        }
        let refused = [
            (0, Rejection::Invalid(faults.clone())),
            (3, Rejection::Invalid(faults)),
            (4, Rejection::Malformed("too deep".into())),
            (5, Rejection::UnknownWebsite("pm-\"x".into())),
        ];
        let wanted = format!(
            r#","errors":[{{"index":0,"error":"VALIDATION_ERROR","message":"Invalid event data",{details}}}}},"#
        ) + r#"{"index":3,"error":"VALIDATION_ERROR","message":"Invalid event data"},"#
            + r#"{"index":4,"error":"MALFORMED_JSON","message":"too deep"},"#
            + r#"{"index":5,"error":"NOT_FOUND","message":"Website with tracking code \"pm-\"x\" not found"}]"#;
        assert_eq!(String::from_utf8(item_errors(&refused, 1)).unwrap(), wanted);
        assert_eq!(item_errors(&[], 1), b"");
    }

    #[test]
    fn warnings_are_written_as_ever() {
        let warning = |index| WarningJson { index, field: "url", code: "TEXT_REPAIRED", message: "A \"b\"" };
        let member = r#""field":"url","code":"TEXT_REPAIRED","message":"A \"b\"""#;
        for (warnings, omitted, wanted) in [
            (vec![], 0, String::new()),
            (vec![warning(None)], 0, format!(r#","warnings":[{{{member}}}]"#)),
            (
                vec![warning(Some(0)), warning(Some(7))],
                2,
                format!(r#","warnings":[{{"index":0,{member}}},{{"index":7,{member}}}],"warningsOmitted":2"#),
            ),
            (vec![], 3, r#","warningsOmitted":3"#.to_owned()),
        ] {
            let found = warning_members(warnings.into_iter(), omitted);
            assert_eq!(String::from_utf8(found).unwrap(), wanted);
        }
    }
}
