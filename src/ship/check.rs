//! What has to be true before anything is sent: the server, the table, and the number under which this directory ships.

use parking_lot::Mutex;

use super::{
    node::{self, Directory, Plan},
    options::ShipOptions,
    server::Server,
    target::{About, column_faults, gone, no_database},
    trouble::Trouble,
    wait,
};
use crate::{
    clock::now_ms,
    store::{Resume, ShipChange, ShipNode, ShipTarget, Shipping},
};

/// What this process has registered last: under which name, and when, as the server writes it. `None` where it has not,
/// or does not know whether it has.
pub(super) type Registered = Mutex<Option<(String, String)>>;

/// Looks at the target, makes what is missing there, and registers the node. Returns what the target is, and when the
/// node was registered, as the server writes it.
pub(super) async fn check(
    shipping: &Shipping,
    options: &ShipOptions,
    server: &Server,
    registered: &Registered,
) -> Result<(About, String), Trouble> {
    let mut about = about(server).await?;
    let asked = shipping.look(|state| state.now.resume);
    if asked == Some(Resume::FromStart) {
        about = begin_anew(shipping, server, about).await?;
    }
    // What somebody asks for while the target does not answer is done when it does.
    shipping.tell(|state| state.now.resume = state.now.resume.filter(|newer| Some(*newer) != asked));
    if !about.has_table() {
        if let Some(known) = shipping.look(|state| state.target.clone()) {
            return Err(Trouble::Pause(elsewhere(&known, options).unwrap_or_else(|| gone(&server.events()))));
        }
        if !server.has_database().await? {
            return Err(Trouble::Pause(no_database(&options.database)));
        }
        server.create_events().await?;
        tracing::info!(table = server.events(), "the table for events is made at the target");
        about = server.about().await?;
    }
    check_table(shipping, server, &about).await?;
    let registered_at = register(shipping, options, (server, &about), registered).await?;
    Ok((about, registered_at))
}

/// What the target is, unless hitlog does not ship to such a server.
async fn about(server: &Server) -> Result<About, Trouble> {
    let about = server.about().await?;
    about.refusal().map_or(Ok(about), |refusal| Err(Trouble::Pause(refusal)))
}

/// Looks at the table once more, after a start has found it as it should be: somebody may have changed it since.
pub(super) async fn look(shipping: &Shipping, server: &Server) -> Result<(), Trouble> {
    let about = about(server).await?;
    if !about.has_table() {
        return Err(Trouble::Pause(gone(&server.events())));
    }
    check_table(shipping, server, &about).await
}

/// Looks at the table's columns.
pub(super) async fn columns(server: &Server) -> Result<(), Trouble> {
    all_is_fit(&column_faults(&server.events(), &server.columns().await?))
}

fn all_is_fit(faults: &[String]) -> Result<(), Trouble> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Trouble::Pause(format!("the table at the target is not fit: {}", faults.join("; "))))
}

async fn check_table(shipping: &Shipping, server: &Server, about: &About) -> Result<(), Trouble> {
    let mut faults = column_faults(&server.events(), &server.columns().await?);
    let mut warnings = Vec::new();
    match about.distributed() {
        Some(to) => {
            let table = format!("{}.{}", to.database, to.table);
            let shards = server.about_shards(&to, &about.version).await?;
            if shards.is_empty() {
                faults.push(format!("{} leads to {table}, which no server of {} has", server.events(), to.cluster));
            }
            faults.extend(shards.iter().flat_map(|shard| shard.engine_faults(&table)));
            warnings.extend(shards.iter().flat_map(|shard| shard.engine_warnings(&table)));
        }
        None => {
            faults.extend(about.engine_faults(&server.events()));
            warnings.extend(about.engine_warnings(&server.events()));
        }
    }
    warnings.into_iter().for_each(|warning| wait::warn_once(shipping, warning));
    all_is_fit(&faults)
}

/// Makes sure that this directory, and no other, ships under its number. Returns when that was registered, as the
/// server writes it.
async fn register(
    shipping: &Shipping,
    options: &ShipOptions,
    (server, about): (&Server, &About),
    registered: &Registered,
) -> Result<String, Trouble> {
    if !server.has_nodes().await? {
        if about.is_replicated() || about.distributed().is_some() {
            return Err(Trouble::Pause(format!(
                "make the table {} at the target, so that every server of the cluster sees it, as docs/clickhouse.md \
                 says",
                server.nodes()
            )));
        }
        server.create_nodes().await?;
    }
    let ShipOptions { url, database, table, node: number, .. } = options;
    let target = ShipTarget { url: url.clone(), database: database.clone(), table: table.clone(), begun_at: now_ms() };
    let (known, mut nodes, cut_up_to) =
        shipping.look(|state| (state.target.clone(), state.nodes.clone(), state.cut_up_to));
    let Some(known) = known else {
        let first = ShipNode { first_sequence: 0, node: *number, instance: String::new() };
        let begun = |node| ShipChange::Begun(target.clone(), node);
        let directory = Directory { before: &[], newest: &first, has_shipped: false };
        return take(shipping, server, directory, registered, begun).await;
    };
    let Some(mut newest) = nodes.pop() else {
        return Err(Trouble::Pause(
            "the table ShipNode of catalog.db is empty, which hitlog never leaves so: put its row back, or give \
             another ship_table, to which all events are shipped from the first on"
                .into(),
        ));
    };
    let has_shipped = cut_up_to >= newest.first_sequence.max(1);
    if newest.node & 0xffff != *number {
        if has_shipped || !nodes.is_empty() {
            return Err(Trouble::Pause(format!(
                "this data directory ships as node {}, and the setting node is {number}: set it back. A directory \
                 keeps its number, as its events are known by it at the target",
                newest.node & 0xffff
            )));
        }
        server.claim((newest.node, &newest.instance), false).await?;
        newest = ShipNode { first_sequence: newest.first_sequence, node: *number, instance: String::new() };
    }
    let directory = Directory { before: &nodes, newest: &newest, has_shipped };
    let at = take(shipping, server, directory, registered, ShipChange::Registered).await?;
    if (known.url, known.database, known.table) != (url.clone(), database.clone(), table.clone()) {
        shipping.note(|| ShipChange::Moved(target.clone())).await?;
    }
    Ok(at)
}

/// Takes a number for the newest node, if it holds none, and registers it anew. Under which name is noted before:
/// hitlog knows its own claim again when it was killed, or has lost the answer.
async fn take(
    shipping: &Shipping,
    server: &Server,
    directory: Directory<'_>,
    registered: &Registered,
    noted: impl Fn(ShipNode) -> ShipChange,
) -> Result<String, Trouble> {
    let Directory { before, newest, has_shipped } = directory;
    let claims = server.claims().await?;
    let number = match node::plan(&claims, directory, &server.nodes()) {
        Plan::Held => {
            let known = registered.lock().clone();
            let known = known.filter(|(instance, _)| *instance == newest.instance);
            let has_twin = known.is_some_and(|(_, at)| node::is_anothers(&claims, newest, &at));
            // What is sent is noted here before, so that nothing of it can be there and unknown here.
            let cut_up_to = shipping.look(|state| state.cut_up_to);
            if has_twin || has_shipped && server.has_any(newest.node, cut_up_to).await? {
                return Err(Trouble::Pause(node::twin(newest.node)));
            }
            return claim(server, newest, &[], registered).await;
        }
        Plan::Refuse(why) => {
            // Whoever mends that may do so by registering this one by hand.
            *registered.lock() = None;
            return Err(Trouble::Pause(why));
        }
        Plan::Take(number) => number,
    };
    if server.has_any(number, 0).await? {
        return Err(Trouble::Pause(has_events(server, number)));
    }
    let mut node = ShipNode { node: number, ..newest.clone() };
    if node.instance.is_empty() || number != newest.node {
        node.instance = format!("{:032x}", rand::random::<u128>());
        shipping.note(|| noted(node.clone())).await?;
    }
    let at = claim(server, &node, before, registered).await?;
    tracing::info!(node = number, instance = node.instance, "registered at the target");
    Ok(at)
}

/// Registers a node, and remembers when.
async fn claim(
    server: &Server,
    node: &ShipNode,
    before: &[ShipNode],
    registered: &Registered,
) -> Result<String, Trouble> {
    *registered.lock() = None;
    let at = node::take(server, node.node, &node.instance, before).await?;
    *registered.lock() = Some((node.instance.clone(), at.clone()));
    Ok(at)
}

/// What is said where the settings name another place than the one that was shipped to, if they do.
fn elsewhere(known: &ShipTarget, options: &ShipOptions) -> Option<String> {
    let ShipTarget { url, database, table, .. } = known;
    let is_same = (url, database, table) == (&options.url, &options.database, &options.table);
    (!is_same).then(|| {
        format!(
            "hitlog has shipped to {database}.{table} at {url} until now; the settings say {}.{} at {}, which is not \
             there, or the user has no rights on it. Set them back; or, if the move is meant, see \"Moving to another \
             server\" in docs/clickhouse.md",
            options.database, options.table, options.url
        )
    })
}

fn has_events(server: &Server, node: u32) -> String {
    format!(
        "{events} has events of node {node}, which this data directory has not shipped: they are another hitlog's, or \
         of a data directory that is no more. Give this one its own number with the setting node, and restart; or, \
         where nobody needs them, take them out and run `hitlog ship resume`: DELETE FROM {events} WHERE node = {node}",
        events = server.events()
    )
}

/// Forgets what was shipped, so that all that is kept is looked for at the target, and what is not there is shipped.
async fn begin_anew(shipping: &Shipping, server: &Server, mut about: About) -> Result<About, Trouble> {
    if !about.has_table() {
        // One that only can't be seen can't be made either.
        server.create_events().await?;
        about = server.about().await?;
        if !about.has_table() {
            return Err(Trouble::Pause(gone(&server.events())));
        }
    }
    let first_sequence = shipping.durable() + 1;
    shipping.note(|| ShipChange::Anew(first_sequence)).await?;
    tracing::warn!("what was shipped is forgotten: all that is kept is looked for, and shipped where it is not there");
    Ok(about)
}
