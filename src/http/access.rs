//! Whether a request may have what needs a role: its token, and in protected mode what shows that it was meant for this
//! hitlog.

use hyper::http::request::Parts;

use super::{
    auth::{self, Role, Tokens},
    errors::{ErrorCode, error},
    protected::{self, Distrust},
    response::Response,
};

/// Lets a request pass on a route that needs a role, or says why not.
pub(super) fn check(tokens: &Tokens, head: &Parts, needed: Role) -> Result<(), Response> {
    tokens.check(&head.headers, needed)?;
    // Where there are tokens, whoever has come this far has sent one.
    let trust = if tokens.is_protected_mode() { protected::check(head) } else { Ok(()) };
    let (code, message) = match trust {
        Err(Distrust::Host) => (
            ErrorCode::Unauthorized,
            "hitlog has no token and so serves this machine only, by the names localhost, 127.0.0.1 and [::1]; for \
             other names in Host set a token (--token, HITLOG_TOKEN or token_file)",
        ),
        Err(Distrust::Page) => (
            ErrorCode::ForbiddenOrigin,
            "A page of another site may send events and nothing else (see Sec-Fetch-Site or Origin); to let one \
             in, set a token (--token, HITLOG_TOKEN or token_file) and send it",
        ),
        Ok(()) if protected::has_foreign_body(&head.headers) => {
            (ErrorCode::UnsupportedEncoding, "The body has to be JSON and say so: Content-Type: application/json")
        }
        Ok(()) => return Ok(()),
    };
    Err(if code == ErrorCode::Unauthorized { auth::refuse(message) } else { error(code, message) })
}

/// Whether whoever sent a request would get what a GET answers that needs a role. Asked with every event.
pub(super) fn may_get(tokens: &Tokens, head: &Parts, needed: Role) -> bool {
    tokens.admits(&head.headers, needed) && !(tokens.is_protected_mode() && protected::check(head).is_err())
}
