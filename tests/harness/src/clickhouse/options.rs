//! What a ClickHouse is started with: its users, clusters and settings, as files that it merges with those of
//! `scripts/clickhouse`.

use std::{fmt::Write, fs, path::Path};

pub struct Options {
    pub(super) memory_bytes: u64,
    users: Vec<User>,
    clusters: Vec<(String, Vec<u16>)>,
    config: String,
    users_config: String,
}

struct User {
    name: String,
    password: String,
    grants: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        let (config, users_config) = (String::new(), String::new());
        Self { memory_bytes: 2_000_000_000, users: Vec::new(), clusters: Vec::new(), config, users_config }
    }
}

impl Options {
    /// How much memory it may take before it refuses queries (241).
    pub fn memory_bytes(&mut self, bytes: u64) -> &mut Self {
        self.memory_bytes = bytes;
        self
    }

    /// A user who needs this password and has these rights and no others: `GRANT INSERT ON a.events`. One of the same
    /// name takes the place of the one before. `CREATE USER` and `GRANT` are refused, as this server keeps no users.
    pub fn user(&mut self, name: &str, password: &str, grants: &[&str]) -> &mut Self {
        assert_is_tag(name);
        let grants = grants.iter().map(|&grant| grant.to_owned()).collect();
        self.users.retain(|user| user.name != name);
        self.users.push(User { name: name.to_owned(), password: password.to_owned(), grants });
        self
    }

    /// A cluster for a Distributed table: the first shard is this server, then come those whose native protocol is on
    /// these ports. Only the server of the Distributed table needs to know it.
    pub fn cluster(&mut self, name: &str, others: &[u16]) -> &mut Self {
        assert_is_tag(name);
        self.clusters.push((name.to_owned(), others.to_vec()));
        self
    }

    /// More of `<clickhouse>` in its configuration: `<max_concurrent_queries>1</max_concurrent_queries>`.
    pub fn config(&mut self, xml: &str) -> &mut Self {
        self.config.push_str(xml);
        self
    }

    /// More of `<clickhouse>` in its users' configuration: what `<profiles>` have, say.
    pub fn users_config(&mut self, xml: &str) -> &mut Self {
        self.users_config.push_str(xml);
        self
    }

    /// Writes the files. What others have put beside them stays.
    pub(super) fn write(&self, data: &Path, tcp_port: u16) {
        let (mut config, mut users) = (self.config.clone(), self.users_config.clone());
        if !self.clusters.is_empty() {
            config.push_str("<remote_servers>");
            self.clusters.iter().for_each(|(name, others)| add_cluster(&mut config, name, tcp_port, others));
            config.push_str("</remote_servers>");
        }
        if !self.users.is_empty() {
            users.push_str("<users>");
            self.users.iter().for_each(|user| add_user(&mut users, user));
            users.push_str("</users>");
        }
        for (folder, xml) in [("config.d", config), ("users.d", users)] {
            let folder = data.join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("options.xml"), format!("<clickhouse>{xml}</clickhouse>\n")).unwrap();
        }
    }
}

fn add_cluster(xml: &mut String, name: &str, own: u16, others: &[u16]) {
    write!(xml, "<{name}>").unwrap();
    for port in [&[own], others].concat() {
        write!(xml, "<shard><replica><host>127.0.0.1</host><port>{port}</port></replica></shard>").unwrap();
    }
    write!(xml, "</{name}>").unwrap();
}

fn add_user(xml: &mut String, User { name, password, grants }: &User) {
    let password = escaped(password);
    let queries: String = grants.iter().map(|grant| format!("<query>{}</query>", escaped(grant))).collect();
    write!(
        xml,
        "<{name}><password>{password}</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
         <quota>default</quota><grants>{queries}</grants></{name}>"
    )
    .unwrap();
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

/// A name of a user or a cluster is the name of an element here.
fn assert_is_tag(name: &str) {
    let is_tag = name.starts_with(|of: char| of.is_ascii_lowercase())
        && name.chars().all(|of| of.is_ascii_alphanumeric() || of == '_');
    assert!(is_tag, "{name:?}: a letter, then letters, digits and _");
}
