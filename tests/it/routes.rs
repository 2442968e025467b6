//! The routes as `docs/api.md` describes them, for tests that are to try every one: the table beside the code is held to
//! the same description.

/// One method of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) method: String,
    /// With `:` and a name where an id stands, and without a query.
    pub(crate) path: String,
    /// The role that it needs.
    pub(crate) role: Option<String>,
}

impl Described {
    /// A path of it, with an id of nothing.
    pub(crate) fn example(&self) -> String {
        self.path.split('/').map(|part| part.replace(':', "no-")).collect::<Vec<_>>().join("/")
    }

    /// Whether this is a path of it.
    pub(crate) fn leads(&self, path: &str) -> bool {
        let path = path.split('?').next().unwrap();
        let (parts, asked) = (self.path.split('/'), path.trim_end_matches('/').split('/'));
        parts.clone().count() == asked.clone().count()
            && parts.zip(asked).all(|(part, asked)| part == asked || part.starts_with(':'))
    }
}

/// Every method of every route.
pub(crate) fn described() -> Vec<Described> {
    let page = include_str!("../../docs/api.md");
    let table = page.split_once("| request | what it does | role of the token |\n").unwrap().1;
    let mut found = Vec::new();
    for row in table.lines().skip(1).take_while(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let role = cells[2].trim_matches('`');
        let (mut methods, mut paths): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for word in cells[0].split('`').skip(1).step_by(2).flat_map(|asked| asked.split(' ')) {
            if word.starts_with('/') { paths.push(word.split('?').next().unwrap()) } else { methods.push(word) }
        }
        for path in paths {
            found.extend(methods.iter().map(|method| Described {
                method: (*method).to_owned(),
                path: path.to_owned(),
                role: (role != "none").then(|| role.to_owned()),
            }));
        }
    }
    found
}

#[test]
fn routes_are_read_from_their_table() {
    let found = described();
    for (method, path, role) in [
        ("POST", "/api/v1/events", None),
        ("DELETE", "/api/v1/websites/:id", Some("admin")),
        ("PUT", "/api/v1/websites/:id", Some("admin")),
        ("GET", "/health", None),
        ("GET", "/metrics", Some("metrics")),
    ] {
        let wanted = Described { method: method.into(), path: path.into(), role: role.map(str::to_owned) };
        assert!(found.contains(&wanted), "{wanted:?} is not in {found:?}");
    }
    let one = |path: &str| found.iter().find(|route| route.path == path).unwrap();
    assert_eq!(one("/api/v1/websites/:id").example(), "/api/v1/websites/no-id");
    for (path, asked, leads) in [
        ("/api/v1/websites/:id", "/api/v1/websites/web-1/?a=b", true),
        ("/api/v1/websites/:id", "/api/v1/websites", false),
        ("/api/v1/events/batch", "/api/v1/events/batch", true),
        ("/api/v1/events/batch", "/api/v1/events/c1", false),
    ] {
        assert_eq!(one(path).leads(asked), leads, "{path} {asked}");
    }
}
