//! THE table of routes. Whatever is known of a route stands in its entry, and everything else follows from it: which
//! request it is for, who may send that, `Allow`, HEAD and OPTIONS, what pages of other sites may read, the label in
//! the metrics; and tests have `config/openapi.yaml` and `docs/api.md` describe the same routes and methods.
//!
//! A new route is an entry here and a handler in its file.

use std::future::ready;

use hyper::Method as HttpMethod;

use super::{
    asked::{Answering, Asked},
    assets,
    auth::Role,
    cors,
    handlers::Handlers,
    options::RequestLimits,
};
use crate::web;

use Who::{Everybody, Holder};

/// The routes, the busiest first.
static ROUTES: &[Route] = &[
    Route {
        is_for_pages: true,
        methods: &[
            get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.query.list(asked))),
            post(Everybody, |handlers, asked| Box::pin(handlers.ingest.event(asked)))
                .with_body(|limits| limits.event_bytes_max)
                .that_takes_events(),
        ],
        ..Route::at("/api/v1/events")
    },
    Route {
        is_for_pages: true,
        methods: &[post(Everybody, |handlers, asked| Box::pin(handlers.ingest.batch(asked)))
            .with_body(|limits| limits.batch_bytes_max)
            .that_takes_events()],
        ..Route::at("/api/v1/events/batch")
    },
    Route {
        is_for_pages: true,
        methods: &[post(Everybody, |handlers, asked| Box::pin(handlers.ingest.beacon(asked)))
            .with_body(|limits| limits.event_bytes_max)
            .that_takes_events()],
        ..Route::at("/api/v1/track")
    },
    Route {
        methods: &[get(Everybody, |handlers, asked| Box::pin(handlers.ingest.pixel(asked)))
            .with_body(|limits| limits.event_bytes_max)
            .that_takes_events()],
        ..Route::at("/pixel.gif")
    },
    Route {
        methods: &[get(Everybody, |_, asked| Box::pin(ready(assets::answer(&web::TRACKER, &asked))))],
        ..Route::at("/tracker.js")
    },
    Route {
        methods: &[get(Everybody, |_, asked| Box::pin(ready(assets::answer(&web::TRACKER_V1, &asked))))],
        ..Route::at("/tracker.v1.js")
    },
    Route {
        methods: &[get(Everybody, |_, asked| Box::pin(ready(assets::answer(&web::TRACKER_MODULE, &asked))))],
        ..Route::at("/tracker.mjs")
    },
    Route {
        methods: &[get(Everybody, |_, asked| Box::pin(ready(assets::answer(&web::TRACKER_TYPES, &asked))))],
        ..Route::at("/tracker.d.ts")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.tail.follow(asked)))],
        ..Route::at("/api/v1/events/tail")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.query.event(asked)))],
        ..Route::at("/api/v1/events/:id")
    },
    Route {
        methods: &[
            // Whoever reads events and numbers needs to know of which websites.
            get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.websites.list(asked))),
            post(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.websites.create(asked)))
                .with_body(|limits| limits.website_bytes_max)
                .that_changes(),
        ],
        ..Route::at("/api/v1/websites")
    },
    Route {
        methods: &[
            get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.websites.get(asked))),
            put(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.websites.update(asked)))
                .with_body(|limits| limits.website_bytes_max)
                .that_changes(),
            delete(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.websites.delete(asked))).that_changes(),
        ],
        ..Route::at("/api/v1/websites/:id")
    },
    Route {
        methods: &[post(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.websites.renew_code(asked)))
            .with_body(|limits| limits.website_bytes_max)
            .that_changes()],
        ..Route::at("/api/v1/websites/:id/tracking-code")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.stats.totals(asked)))],
        ..Route::at("/api/v1/stats")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.stats.series(asked)))],
        ..Route::at("/api/v1/stats/series")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.stats.top(asked)))],
        ..Route::at("/api/v1/stats/top/:dimension")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.stats.live(asked)))],
        ..Route::at("/api/v1/stats/live")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.metrics(asked)))],
        ..Route::at("/api/v1/dashboard/metrics")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.pageviews(asked)))],
        ..Route::at("/api/v1/dashboard/pageviews")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.top_pages(asked)))],
        ..Route::at("/api/v1/dashboard/top-pages")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.referrers(asked)))],
        ..Route::at("/api/v1/dashboard/referrers")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.devices(asked)))],
        ..Route::at("/api/v1/dashboard/devices")
    },
    Route {
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.dashboard.locations(asked)))],
        ..Route::at("/api/v1/dashboard/locations")
    },
    Route {
        is_for_pages: true,
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.stats.goals(asked)))],
        ..Route::at("/api/v1/stats/goals")
    },
    Route {
        methods: &[delete(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.erasures.erase_visitor(asked)))
            .that_changes()],
        ..Route::at("/api/v1/visitors/:visitorId")
    },
    Route {
        // Whoever reads needs to know until when something is being erased.
        methods: &[get(Holder(Role::Read), |handlers, asked| Box::pin(handlers.erasures.get(asked)))],
        ..Route::at("/api/v1/erasures/:id")
    },
    Route {
        methods: &[get(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.shipping.get(asked)))],
        ..Route::at("/api/v1/shipping")
    },
    Route {
        methods: &[get(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.shipping.dead(asked)))],
        ..Route::at("/api/v1/shipping/dead")
    },
    Route {
        methods: &[
            post(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.shipping.resume(asked))).that_changes()
        ],
        ..Route::at("/api/v1/shipping/resume")
    },
    Route {
        methods: &[
            get(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.shipping.verified(asked))),
            post(Holder(Role::Admin), |handlers, asked| Box::pin(handlers.shipping.verify(asked))).that_changes(),
        ],
        ..Route::at("/api/v1/shipping/verify")
    },
    Route {
        memory: AnswerMemory::Ops,
        methods: &[get(Everybody, |handlers, _| Box::pin(handlers.ops.live()))],
        ..Route::at("/livez")
    },
    Route {
        aliases: &["/health"],
        memory: AnswerMemory::Ops,
        methods: &[get(Everybody, |handlers, _| Box::pin(handlers.ops.ready()))],
        ..Route::at("/readyz")
    },
    Route {
        memory: AnswerMemory::Ops,
        methods: &[get(Holder(Role::Metrics), |handlers, asked| Box::pin(handlers.ops.metrics(asked)))],
        ..Route::at("/metrics")
    },
    Route {
        methods: &[get(Everybody, |handlers, _| Box::pin(handlers.ops.description()))],
        ..Route::at("/openapi.yaml")
    },
    Route {
        methods: &[get(Everybody, |handlers, _| Box::pin(handlers.ops.gpc()))],
        ..Route::at("/.well-known/gpc.json")
    },
];

/// Where a request goes for whose path there is no route.
static NOWHERE: Route = Route::at("unknown");

/// One route.
pub(super) struct Route {
    /// Its path, which is its label in the metrics, too. One segment of it may be a parameter: a colon and its name.
    path: &'static str,
    /// What stands before the id and after it, if there is one.
    around_id: Option<(&'static str, &'static str)>,
    /// Other paths that lead here.
    aliases: &'static [&'static str],
    /// Pages of any site may read what is answered here, except to what needs a token; and preflights are answered.
    is_for_pages: bool,
    /// The memory that answers are counted in.
    pub(super) memory: AnswerMemory,
    /// What it takes. HEAD is taken where GET is, and OPTIONS where pages may read.
    methods: &'static [Method],
}

/// The memory that an answer is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerMemory {
    /// That of all answers.
    Shared,
    /// That of those that tell whether hitlog is well: who watches it gets them whatever others do.
    Ops,
}

/// One method of a route.
pub(super) struct Method {
    name: HttpMethod,
    pub(super) who: Who,
    /// The largest body that is taken; of the others nothing is read.
    pub(super) body_bytes_max: fn(&RequestLimits) -> usize,
    /// It changes what is known of websites and visitors. The memory of its answer is put aside before, since
    /// afterwards nothing can be refused. Events see to that themselves.
    pub(super) changes: bool,
    /// What it is sent are events.
    takes_events: bool,
    pub(super) handler: Handler,
}

/// Answers a request.
pub(super) type Handler = for<'a> fn(&'a Handlers, Asked<'a>) -> Answering<'a>;

/// Who may send a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    Everybody,
    /// Who has a token that reaches this role.
    Holder(Role),
}

const fn get(who: Who, handler: Handler) -> Method {
    Method::new(HttpMethod::GET, who, handler)
}

const fn post(who: Who, handler: Handler) -> Method {
    Method::new(HttpMethod::POST, who, handler)
}

const fn put(who: Who, handler: Handler) -> Method {
    Method::new(HttpMethod::PUT, who, handler)
}

const fn delete(who: Who, handler: Handler) -> Method {
    Method::new(HttpMethod::DELETE, who, handler)
}

impl Method {
    const fn new(name: HttpMethod, who: Who, handler: Handler) -> Self {
        Self { name, who, body_bytes_max: |_| 0, changes: false, takes_events: false, handler }
    }

    const fn with_body(mut self, bytes_max: fn(&RequestLimits) -> usize) -> Self {
        self.body_bytes_max = bytes_max;
        self
    }

    const fn that_changes(mut self) -> Self {
        self.changes = true;
        self
    }

    const fn that_takes_events(mut self) -> Self {
        self.takes_events = true;
        self
    }
}

impl Route {
    /// A route that takes nothing yet.
    const fn at(path: &'static str) -> Self {
        Self {
            path,
            around_id: around_id(path),
            aliases: &[],
            is_for_pages: false,
            memory: AnswerMemory::Shared,
            methods: &[],
        }
    }

    /// What it does with a method. HEAD is GET without the body, which hyper leaves out.
    pub(super) fn method(&self, name: &HttpMethod) -> Option<&Method> {
        let name = if *name == HttpMethod::HEAD { &HttpMethod::GET } else { name };
        self.methods.iter().find(|method| method.name == *name)
    }

    /// Whether OPTIONS is answered here.
    pub(super) fn has_preflights(&self) -> bool {
        self.is_for_pages
    }

    /// Every method that is taken here, for `Allow`; empty where there is no route.
    pub(super) fn allow(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for method in self.methods {
            names.push(method.name.as_str());
            if method.name == HttpMethod::GET {
                names.push(HttpMethod::HEAD.as_str());
            }
        }
        if self.is_for_pages {
            names.push(HttpMethod::OPTIONS.as_str());
        }
        names.join(", ")
    }

    /// What pages of any site may send here. POST is among it in any case: a page that sends an event to a wrong path
    /// is to read why.
    pub(super) fn methods_of_pages(&self) -> String {
        let open = self.methods.iter().filter(|method| method.who == Everybody && method.name != HttpMethod::POST);
        let mut names = vec![HttpMethod::POST.as_str()];
        names.extend(open.map(|method| method.name.as_str()));
        names.push(HttpMethod::OPTIONS.as_str());
        names.join(", ")
    }

    /// Whether there is none.
    pub(super) fn is_nowhere(&self) -> bool {
        self.methods.is_empty()
    }

    /// Whether a page of any site may read the answer to this method at this path. What needs a token is for whoever
    /// has one, and no page of another site is.
    pub(super) fn may_pages_read(&self, method: &HttpMethod, path: &str) -> bool {
        let is_for_pages = if self.is_nowhere() { cors::is_event_path(path) } else { self.is_for_pages };
        is_for_pages && self.method(method).is_none_or(|method| method.who == Everybody)
    }

    /// The id in a path of this route, escaped as it was sent.
    fn id_in<'p>(&self, path: &'p str) -> Option<&'p str> {
        let (before, after) = self.around_id?;
        let id = path.strip_prefix(before)?.strip_suffix(after)?;
        (!id.is_empty() && !id.contains('/')).then_some(id)
    }
}

/// What stands before the id of a path and after it.
const fn around_id(path: &'static str) -> Option<(&'static str, &'static str)> {
    let bytes = path.as_bytes();
    let mut begin = 0;
    while begin < bytes.len() && bytes[begin] != b':' {
        begin += 1;
    }
    let mut end = begin;
    while end < bytes.len() && bytes[end] != b'/' {
        end += 1;
    }
    if begin == bytes.len() { None } else { Some((path.split_at(begin).0, path.split_at(end).1)) }
}

/// Where a path leads.
pub(super) struct Found<'p> {
    pub(super) route: &'static Route,
    /// The place of its label in [`route_labels`].
    pub(super) label: usize,
    /// The id in the path, escaped as it was sent; empty where there is none.
    pub(super) id: &'p str,
}

/// Where a path leads. A slash at its end is as none.
pub(super) fn find(path: &str) -> Found<'_> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let is_plain = |route: &Route| route.around_id.is_none() && (route.path == path || route.aliases.contains(&path));
    if let Some(label) = ROUTES.iter().position(is_plain) {
        return Found { route: &ROUTES[label], label, id: "" };
    }
    let with_id = ROUTES.iter().enumerate().find_map(|(label, route)| Some((route, label, route.id_in(path)?)));
    let (route, label, id) = with_id.unwrap_or((&NOWHERE, ROUTES.len(), ""));
    Found { route, label, id }
}

/// The labels of the routes in the metrics, in the order of the table; the last one is of what leads nowhere.
pub fn route_labels() -> Vec<&'static str> {
    ROUTES.iter().chain([&NOWHERE]).map(|route| route.path).collect()
}

/// The places, among the labels, of the routes that events are sent to.
pub fn ingest_labels() -> Vec<usize> {
    let takes_events = |route: &Route| route.methods.iter().any(|method| method.takes_events);
    ROUTES.iter().enumerate().filter(|(_, route)| takes_events(route)).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn paths() {
        for (path, route, id) in [
            ("/api/v1/events", "/api/v1/events", ""),
            ("/api/v1/events/batch", "/api/v1/events/batch", ""),
            ("/api/v1/events/tail", "/api/v1/events/tail", ""),
            ("/api/v1/events/c123", "/api/v1/events/:id", "c123"),
            ("/api/v1/events/:id", "/api/v1/events/:id", ":id"),
            ("/api/v1/events/", "/api/v1/events", ""),
            ("/api/v1/events/batch/", "/api/v1/events/batch", ""),
            ("/api/v1/events/c123/", "/api/v1/events/:id", "c123"),
            ("/api/v1/events//", "unknown", ""),
            ("/api/v1/events/c123//", "unknown", ""),
            ("/api/v1/websites/web-1/", "/api/v1/websites/:id", "web-1"),
            ("/health/", "/readyz", ""),
            ("/livez/", "/livez", ""),
            ("/api/v1/events/a/b", "unknown", ""),
            ("/api/v1/track/", "/api/v1/track", ""),
            ("/api/v1/dashboard/top-pages", "/api/v1/dashboard/top-pages", ""),
            ("/api/v1/dashboard/chart-data", "unknown", ""),
            ("/api/v1/websites/web-1", "/api/v1/websites/:id", "web-1"),
            ("/api/v1/websites/web-1/tracking-code", "/api/v1/websites/:id/tracking-code", "web-1"),
            ("/api/v1/websites//tracking-code", "unknown", ""),
            ("/.well-known/gpc.json", "/.well-known/gpc.json", ""),
            ("/api/v1/visitors/a%2Fb", "/api/v1/visitors/:visitorId", "a%2Fb"),
            ("/api/v1/erasures/era-1", "/api/v1/erasures/:id", "era-1"),
            ("/health", "/readyz", ""),
            ("unknown", "unknown", ""),
            ("/", "unknown", ""),
            ("//", "unknown", ""),
            ("", "unknown", ""),
            ("*", "unknown", ""),
        ] {
            let found = find(path);
            assert_eq!((found.route.path, found.id), (route, id), "{path}");
            assert_eq!(route_labels()[found.label], route, "{path}");
        }
    }

    #[test]
    fn an_id_may_stand_anywhere_in_a_path() {
        for (pattern, path, id) in [
            ("/a/:id", "/a/1", Some("1")),
            ("/a/:id", "/a/", None),
            ("/a/:id", "/a/1/b", None),
            ("/a/:id/b", "/a/1/b", Some("1")),
            ("/a/:id/b", "/a//b", None),
            ("/a/:id/b", "/a/b", None),
            ("/a/:id/b", "/a/1/2/b", None),
            ("/a", "/a", None),
        ] {
            assert_eq!(Route::at(pattern).id_in(path), id, "{pattern} {path}");
        }
    }

    #[test]
    fn an_open_method_may_be_sent_by_pages() {
        const METHODS: &[Method] = &[
            put(Everybody, |handlers, _| Box::pin(handlers.ops.live())),
            delete(Holder(Role::Admin), |handlers, _| Box::pin(handlers.ops.live())),
        ];
        let route = Route { is_for_pages: true, methods: METHODS, ..Route::at("/a") };
        assert_eq!(route.methods_of_pages(), "POST, PUT, OPTIONS");
    }

    #[test]
    fn what_follows_from_the_table() {
        for (path, allow, readable) in [
            ("/api/v1/events", "GET, HEAD, POST, OPTIONS", &["POST", "OPTIONS", "PUT"][..]),
            ("/api/v1/events/batch", "POST, OPTIONS", &["GET", "HEAD", "POST", "OPTIONS", "PUT"]),
            ("/api/v1/events/c1", "GET, HEAD, OPTIONS", &["POST", "OPTIONS", "PUT"]),
            ("/api/v1/track", "POST, OPTIONS", &["GET", "HEAD", "POST", "OPTIONS", "PUT"]),
            ("/api/v1/tracks", "", &["GET", "HEAD", "POST", "OPTIONS", "PUT"]),
            ("/api/v1/dashboard/metrics", "GET, HEAD", &[]),
            ("/api/v1/events/a/b", "", &["GET", "HEAD", "POST", "OPTIONS", "PUT"]),
            ("/api/v1/websites", "GET, HEAD, POST", &[]),
            ("/api/v1/websites/a", "GET, HEAD, PUT, DELETE", &[]),
            ("/readyz", "GET, HEAD", &[]),
            ("/", "", &[]),
        ] {
            let route = find(path).route;
            assert_eq!(route.allow(), allow, "{path}");
            let is_right = readable.is_empty() || route.methods_of_pages() == "POST, OPTIONS";
            assert!(is_right, "{path}: what reads is not for pages");
            let may = |name: &&str| route.may_pages_read(&name.parse().unwrap(), path);
            let found: Vec<_> =
                ["GET", "HEAD", "POST", "OPTIONS", "PUT"].into_iter().filter(|name| may(name)).collect();
            assert_eq!(found, readable, "{path}");
        }
    }

    /// The paths of a description, each with its methods and whether they are open. An id is `:`.
    fn described(text: &str) -> BTreeSet<(String, String, bool)> {
        let (mut path, mut found) = (String::new(), Vec::new());
        let paths = text.split_once("\npaths:\n").unwrap().1.split("\ncomponents:").next().unwrap();
        for line in paths.lines() {
            let name = |indent: &str| line.strip_prefix(indent)?.strip_suffix(':').filter(|name| !name.contains(' '));
            if let Some(name) = name("  ").filter(|name| name.starts_with('/')) {
                path = name
                    .split('/')
                    .map(|part| if part.starts_with('{') { ":" } else { part })
                    .collect::<Vec<_>>()
                    .join("/");
            } else if let Some(name) = name("    ").filter(|name| *name != "parameters") {
                found.push((path.clone(), name.to_uppercase(), false));
            } else if line == "      security: []" {
                found.last_mut().unwrap().2 = true;
            }
        }
        found.into_iter().collect()
    }

    #[test]
    fn the_description_names_the_same_routes_and_methods() {
        let mut wanted = BTreeSet::new();
        for route in ROUTES {
            for path in [route.path].iter().chain(route.aliases) {
                let path: Vec<_> = path.split('/').map(|part| if part.starts_with(':') { ":" } else { part }).collect();
                for name in route.allow().split(", ") {
                    let method = route.method(&name.parse().unwrap());
                    let is_open = method.is_none_or(|method| method.who == Everybody);
                    wanted.insert((path.join("/"), name.to_owned(), is_open));
                }
            }
        }
        let description = include_str!("../../config/openapi.yaml");
        assert_eq!(described(description), wanted);
        for (said, other) in
            [("  /livez:\n", "  /live:\n"), ("    delete:\n", "    patch:\n"), ("      security: []", "      x: []")]
        {
            assert_ne!(described(&description.replacen(said, other, 1)), wanted, "{other}");
        }
    }

    /// The rows of the table for people: each path and method, with the role that it needs, or `none`.
    fn told(text: &str) -> BTreeSet<(String, String, String)> {
        let table = text.split_once("| request | what it does | role of the token |\n").unwrap().1;
        let (mut found, mut method) = (BTreeSet::new(), "");
        for row in table.lines().skip(1).take_while(|line| line.starts_with("| ")) {
            let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
            let mut without_path = Vec::new();
            for asked in cells[0].split('`').skip(1).step_by(2) {
                let path_at = asked.find('/').unwrap_or(asked.len());
                let path = asked[path_at..].split('?').next().unwrap();
                if path_at > 0 {
                    method = asked[..path_at].trim();
                    without_path.push(method);
                }
                if !path.is_empty() {
                    let methods =
                        if without_path.is_empty() { vec![method] } else { std::mem::take(&mut without_path) };
                    let role = cells[2].trim_matches('`');
                    found.extend(methods.into_iter().map(|method| (path.into(), method.into(), role.into())));
                }
            }
            assert!(without_path.is_empty(), "{row}");
        }
        found
    }

    #[test]
    fn the_table_for_people_names_the_same_routes_methods_and_roles() {
        let mut wanted = BTreeSet::new();
        for route in ROUTES {
            for path in [route.path].iter().chain(route.aliases) {
                for method in route.methods {
                    let role = match method.who {
                        Everybody => "none",
                        Holder(role) => role.as_str(),
                    };
                    wanted.insert(((*path).to_owned(), method.name.to_string(), role.to_owned()));
                }
            }
        }
        let page = include_str!("../../docs/api.md");
        assert_eq!(told(page), wanted);
        for (said, other) in [
            ("`/health`", "`/healthz`"),
            ("`PUT`, `DELETE /api", "`DELETE /api"),
            ("| none |", "| `read` |"),
            ("visitors/:visitorId", "visitors/:id"),
        ] {
            assert_ne!(told(&page.replacen(said, other, 1)), wanted, "{other}");
        }
    }
}
