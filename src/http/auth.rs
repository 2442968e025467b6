//! Who may do what: bearer tokens and their roles, or protected mode when there are none.

use std::{future::pending, sync::Arc};

use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
};
use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};
use tokio::sync::watch;

use super::{
    errors::{ErrorCode, error},
    response::Response,
};

/// What a token lets its holder do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read the metrics.
    Metrics,
    /// Read events, websites and the progress of erasures.
    Read,
    /// Everything.
    Admin,
}

impl Role {
    const ALL: [Self; 3] = [Self::Metrics, Self::Read, Self::Admin];

    fn reaches(self, needed: Self) -> bool {
        self == Self::Admin || self == needed
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }
}

/// The tokens, hashed: comparing hashes takes the same time wherever a guess goes wrong and however long it is.
pub struct Tokens {
    hashed: RwLock<Arc<[Hashed]>>,
    /// Tells whoever has been let in for longer that other tokens may be valid.
    changed: watch::Sender<()>,
    /// Fixed at the start: no change of the tokens leads into protected mode or out of it.
    is_protected_mode: bool,
}

struct Hashed {
    hash: [u8; 32],
    role: Role,
}

/// Who was let in by a token that may become invalid while the answer goes on.
pub(super) struct Holder {
    tokens: Arc<Tokens>,
    /// The hash of the token; `None` in protected mode, where there are none.
    hash: Option<[u8; 32]>,
    needed: Role,
    changes: watch::Receiver<()>,
}

impl Holder {
    /// Whoever sent these headers, and has been let in for a role.
    pub(super) fn new(tokens: &Arc<Tokens>, headers: &HeaderMap, needed: Role) -> Self {
        let hash = bearer(headers).filter(|_| !tokens.is_protected_mode()).map(|token| Sha256::digest(token).into());
        let mut changes = tokens.changed.subscribe();
        // Since it was let in the tokens may have changed: it is looked at once more.
        changes.mark_changed();
        Self { tokens: Arc::clone(tokens), hash, needed, changes }
    }

    /// Waits until its token is not valid any more, which it says once. May be given up and begun again before that.
    pub(super) async fn is_shut_out(&mut self) {
        if let Some(hash) = &self.hash {
            while self.changes.changed().await.is_ok() {
                if !self.tokens.role_of_hash(hash).is_some_and(|role| role.reaches(self.needed)) {
                    return;
                }
            }
        }
        pending::<()>().await;
    }
}

/// Headers by which a proxy says that somebody else is behind it.
const PROXY_HEADERS: [&str; 9] = [
    "forwarded",
    "x-forwarded",
    "x-real-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-original-host",
    "cf-connecting-ip",
    "true-client-ip",
];
const PROXY_HEADER_PREFIX: &str = "x-forwarded-";

impl Tokens {
    /// Hashes the tokens; none means protected mode.
    pub fn new<'a>(tokens: impl Iterator<Item = (Role, &'a str)>) -> Self {
        let hashed = hash_all(tokens);
        Self { is_protected_mode: hashed.is_empty(), hashed: RwLock::new(hashed), changed: watch::Sender::new(()) }
    }

    /// Puts other tokens in the place of those that were valid. None at all change nothing: nobody could come in any
    /// more, and everybody must not.
    pub fn replace<'a>(&self, tokens: impl Iterator<Item = (Role, &'a str)>) {
        let hashed = hash_all(tokens);
        if !self.is_protected_mode && !hashed.is_empty() {
            *self.hashed.write() = hashed;
            self.changed.send_replace(());
        }
    }

    /// Whether there are none: requests are taken without a token, from this machine only.
    pub(super) fn is_protected_mode(&self) -> bool {
        self.is_protected_mode
    }

    /// Lets a request pass on a route that needs a role, or says why not.
    pub(super) fn check(&self, headers: &HeaderMap, needed: Role) -> Result<(), Response> {
        if self.is_protected_mode() {
            // A proxy on this machine makes the whole world look local.
            return match proxy_header(headers) {
                None => Ok(()),
                Some(name) => Err(refuse(&format!(
                    "hitlog has no token and so serves this machine only, but the header \"{name}\" says that a proxy \
                     speaks for somebody else; set a token (--token, HITLOG_TOKEN or token_file)"
                ))),
            };
        }
        let Some(token) = bearer(headers) else {
            return Err(refuse("This needs a token: send the header \"Authorization: Bearer TOKEN\""));
        };
        match self.role_of(token) {
            Some(role) if role.reaches(needed) => Ok(()),
            Some(role) => Err(error(
                ErrorCode::Forbidden,
                &format!(
                    "This needs a token of the role {}; the role of this one is {}",
                    reaching(needed),
                    role.as_str()
                ),
            )),
            None => Err(refuse("The token is not valid")),
        }
    }

    /// Whether a request would pass on a route that needs a role.
    pub(super) fn admits(&self, headers: &HeaderMap, needed: Role) -> bool {
        if self.is_protected_mode() {
            return proxy_header(headers).is_none();
        }
        let role = bearer(headers).and_then(|token| self.role_of(token));
        role.is_some_and(|role| role.reaches(needed))
    }

    /// The role of a token, if it is valid.
    fn role_of(&self, token: &[u8]) -> Option<Role> {
        self.role_of_hash(&Sha256::digest(token).into())
    }

    fn role_of_hash(&self, hash: &[u8; 32]) -> Option<Role> {
        let hashed = Arc::clone(&self.hashed.read());
        // Every token is compared, so that the time does not tell which one came close, nor which one it was.
        let none = Role::ALL.len() as u8;
        let found = hashed
            .iter()
            .fold(none, |found, known| u8::conditional_select(&found, &(known.role as u8), known.hash.ct_eq(hash)));
        Role::ALL.get(usize::from(found)).copied()
    }
}

fn hash_all<'a>(tokens: impl Iterator<Item = (Role, &'a str)>) -> Arc<[Hashed]> {
    tokens.map(|(role, token)| Hashed { hash: Sha256::digest(token).into(), role }).collect()
}

/// The roles that reach what needs this one, in words.
fn reaching(needed: Role) -> String {
    match needed {
        Role::Admin => Role::Admin.as_str().to_owned(),
        other => format!("{} or {}", other.as_str(), Role::Admin.as_str()),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

fn proxy_header(headers: &HeaderMap) -> Option<&str> {
    headers
        .keys()
        .map(hyper::header::HeaderName::as_str)
        .find(|name| PROXY_HEADERS.contains(name) || name.starts_with(PROXY_HEADER_PREFIX))
}

/// 401, with the reason.
pub(super) fn refuse(message: &str) -> Response {
    let mut response = error(ErrorCode::Unauthorized, message);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;

    const METRICS: &str = "metrics-89abcdef";
    const READ: &str = "read-56789abcdef";
    const ADMIN: &str = "0123456789abcdef";

    fn tokens() -> Tokens {
        let all =
            [(Role::Metrics, METRICS), (Role::Read, READ), (Role::Admin, ADMIN), (Role::Admin, "admin-6789abcdef")];
        Tokens::new(all.into_iter())
    }

    fn check(tokens: &Tokens, needed: Role, header: Option<(&str, &str)>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        let checked = tokens.check(&headers, needed);
        assert_eq!(tokens.admits(&headers, needed), checked.is_ok(), "{header:?}");
        checked.map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    #[test]
    fn who_passes() {
        let (none, tokens) = (Tokens::new([].into_iter()), tokens());
        for (tokens, header, status) in [
            (&none, None, 200),
            (&none, Some(("authorization", "Bearer YOUR_ACCESS_TOKEN")), 200),
            (&none, Some(("forwarded", "for=192.0.2.1")), 401),
            (&none, Some(("x-forwarded-for", "192.0.2.1")), 401),
            (&none, Some(("x-forwarded-anything", "x")), 401),
            (&none, Some(("x-real-ip", "192.0.2.1")), 401),
            (&none, Some(("via", "1.1 proxy")), 401),
            (&tokens, None, 401),
            (&tokens, Some(("authorization", "Bearer 0123456789abcdef")), 200),
            (&tokens, Some(("authorization", "bearer  admin-6789abcdef")), 200),
            (&tokens, Some(("authorization", "Bearer 0123456789abcdeg")), 401),
            (&tokens, Some(("authorization", "Bearer 0123456789abcde")), 401),
            (&tokens, Some(("authorization", "Basic 0123456789abcdef")), 401),
            (&tokens, Some(("authorization", "Bearer")), 401),
        ] {
            assert_eq!(check(tokens, Role::Admin, header), status, "{header:?}");
        }
        let mut behind_proxy = HeaderMap::new();
        behind_proxy.insert(AUTHORIZATION, HeaderValue::from_static("Bearer 0123456789abcdef"));
        behind_proxy.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1"));
        assert!(tokens.check(&behind_proxy, Role::Admin).is_ok(), "with a token a proxy is welcome");
    }

    #[test]
    fn how_far_a_role_reaches() {
        let tokens = tokens();
        for (token, metrics, read, admin) in [
            (METRICS, 200, 403, 403),
            (READ, 403, 200, 403),
            (ADMIN, 200, 200, 200),
            ("unknown-89abcdef", 401, 401, 401),
        ] {
            let bearer = format!("Bearer {token}");
            let status = |needed| check(&tokens, needed, Some(("authorization", &bearer)));
            let statuses = [Role::Metrics, Role::Read, Role::Admin].map(status);
            assert_eq!(statuses, [metrics, read, admin], "{token}");
        }
    }

    #[test]
    fn other_tokens_take_the_place_of_the_first() {
        let tokens = tokens();
        let status = |token: &str| check(&tokens, Role::Metrics, Some(("authorization", &format!("Bearer {token}"))));
        tokens.replace([(Role::Metrics, "new-metrics-abcdef")].into_iter());
        assert_eq!((status("new-metrics-abcdef"), status(METRICS), status(ADMIN)), (200, 401, 401));
        tokens.replace([].into_iter());
        assert_eq!(status("new-metrics-abcdef"), 200, "no tokens change nothing");
        assert_eq!(check(&tokens, Role::Admin, None), 401, "and never lead into protected mode");
        let none = Tokens::new([].into_iter());
        none.replace([(Role::Admin, ADMIN)].into_iter());
        assert!(none.is_protected_mode());
    }
}
