//! The results as a page that a person reads at a glance: what was asked and reached, charts, the table. One file, with
//! nothing to load from elsewhere.

use std::fmt::Write;

use super::{
    chart::{self, short},
    results::{Results, Row, Verdict},
};

pub fn html(results: &Results) -> String {
    let mut out = format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1"><title>hitlog under load</title><style>{STYLE}</style></head><body><main><h1>hitlog under load</h1><p class="lead">Events over HTTP, answered when they are safely on disk, beside the limits of the same machine in the same run.</p>"#
    );
    out.push_str("<dl>");
    for (name, text) in &results.facts {
        let _ = write!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(text));
    }
    out.push_str("</dl><h2>What was asked</h2><section class=\"tiles\">");
    results.verdicts.iter().for_each(|verdict| tile(&mut out, verdict));
    out.push_str("</section>");
    if !results.by_rate.is_empty() {
        let text = "Single events at fixed rates, counted from when each was due. Look at where the lines leave the \
                    ground: from there on the queue grows.";
        figure(&mut out, "What a client waits", &chart::latency(&results.by_rate), text);
    }
    if !results.by_connections.is_empty() {
        let text = "Single events, each connection sending its next when the last is answered. Few connections wait for \
                    the disk; many share its syncs.";
        figure(&mut out, "How much it takes", &chart::throughput(&results.by_connections), text);
    }
    if !results.timeline.is_empty() {
        let text = "The long run, in batches of 500. Segments roll when they are full and get their indexes in the \
                    background: the rate should stay level through both.";
        figure(&mut out, "Whether it stays so", &chart::timeline(&results.timeline), text);
    }
    out.push_str("<h2>All figures</h2>");
    tables(&mut out, &results.rows);
    out.push_str(METHOD);
    out + "</main></body></html>\n"
}

fn tile(out: &mut String, verdict: &Verdict) {
    let (class, mark) = match (verdict.reaches(verdict.aim), verdict.reaches(verdict.bar)) {
        (true, _) => ("aim", "✓✓"),
        (false, true) => ("bar", "✓"),
        (false, false) => ("missed", "✗"),
    };
    let word = if verdict.at_least { "at least" } else { "at most" };
    let (unit, bar, aim) = (escape(&verdict.unit), verdict.bar, verdict.aim);
    let _ = write!(
        out,
        r#"<article class="{class}"><h3>{}</h3><p class="figure">{}<small> {unit}</small></p><p class="outcome">{mark} {}</p><p class="asked">{word} {bar} {unit}, aim {aim} {unit}<br>against: {}</p></article>"#,
        escape(&verdict.measure),
        digits(verdict.figure),
        verdict.outcome().to_lowercase(),
        escape(&verdict.against)
    );
}

fn figure(out: &mut String, title: &str, svg: &str, text: &str) {
    let _ = write!(out, "<h2>{title}</h2><figure>{svg}<figcaption>{text}</figcaption></figure>");
}

const COLUMNS: [&str; 12] = [
    "events/s",
    "of the limit",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "CPU µs/event",
    "peak MiB",
    "disk B/event",
    "syncs/s",
    "mean group",
    "503",
    "the limit",
];

fn tables(out: &mut String, rows: &[Row]) {
    for section in rows.chunk_by(|a, b| a.section == b.section) {
        let Some(first) = section.first() else { continue };
        let _ = write!(out, "<div class=\"wide\"><table><tr><th>{}</th>", escape(&first.section));
        for column in COLUMNS {
            let _ = write!(out, "<th>{column}</th>");
        }
        out.push_str("</tr>");
        for row in section {
            let _ = write!(out, "<tr><td>{}</td><td>{}</td>", escape(&row.name), short(row.rate));
            let numbers = [
                row.ratio,
                Some(row.p50_ms),
                Some(row.p99_ms),
                Some(row.p999_ms),
                row.cpu_us_per_event,
                row.peak_rss_mib,
                row.disk_bytes_per_event,
                row.syncs_per_second,
                row.mean_group,
            ];
            for number in numbers {
                let _ = write!(out, "<td>{}</td>", number.map_or_else(|| "–".to_owned(), digits));
            }
            let refused = if row.refused > 0 { "refused" } else { "" };
            let _ = write!(out, r#"<td class="{refused}">{}</td><td>{}</td></tr>"#, row.refused, escape(&row.limit));
        }
        out.push_str("</table></div>");
    }
}

/// Three digits that matter.
fn digits(number: f64) -> String {
    match number.abs() {
        size if size > 0.0 && size < 1.0 => format!("{number:.3}"),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const METHOD: &str = "<h2>How this was measured</h2><p>The load comes from one thread on the same machine, over \
    loopback, and takes its share of the processor from whatever it loads. In a closed loop each connection sends its \
    next request when its answer is there. In an open loop requests are due at fixed times, and a latency counts from \
    when its request was due, so a stall is charged for everything that should have been sent meanwhile. hitlog and \
    its limit run in turn; the median of the rounds counts. Processor time is the whole process's. The ratios carry \
    over to another machine, the rates do not.</p>";

const STYLE: &str = "\
:root{color-scheme:light dark;--paper:#fbfaf8;--ink:#1d2430;--soft:#667085;--line:#e3e1dc;--card:#fff;--ours:#0b63b6;\
--bare:#c2620a;--good:#1a7f4b;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--paper:#14171c;--ink:#e8eaed;--soft:#98a2b3;--line:#2c323b;--card:#1b2027;\
--ours:#6cb2f5;--bare:#f0a35e;--good:#5cc98f;--bad:#f2877f}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);\
font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;font-variant-numeric:tabular-nums}\
main{max-width:1180px;margin:0 auto;padding:48px 20px 80px}h1{font-size:34px;letter-spacing:-.02em;margin:0}\
h2{font-size:20px;margin:52px 0 14px}.lead{color:var(--soft);margin:6px 0 24px;max-width:60ch}\
dl{display:flex;flex-wrap:wrap;gap:8px 28px;margin:0;font-size:13px}dt{color:var(--soft)}dd{margin:0}\
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:14px}\
article{background:var(--card);border:1px solid var(--line);border-top:3px solid var(--good);border-radius:10px;\
padding:14px 16px;display:flex;flex-direction:column}article.missed{border-top-color:var(--bad)}\
h3{font-size:14px;font-weight:600;margin:0;line-height:1.35}article p{margin:0}\
.figure{font-size:32px;font-weight:650;letter-spacing:-.02em;margin-top:auto!important;padding-top:8px}\
.figure small{font-size:16px;font-weight:400;color:var(--soft)}.outcome{color:var(--good);font-size:13px;font-weight:600}\
.missed .outcome{color:var(--bad)}.asked{font-size:12px;color:var(--soft);line-height:1.45}\
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px;overflow-x:auto}\
svg{width:100%;min-width:560px;height:auto;display:block}figcaption{color:var(--soft);font-size:14px;margin-top:6px}\
.grid{stroke:var(--line)}.tick{fill:var(--soft);font-size:11px}.value{fill:var(--ink);font-size:12px;font-weight:600}\
.line{fill:none;stroke-width:2;stroke-linejoin:round}.line.ours{stroke:var(--ours)}\
.line.bare{stroke:var(--bare);stroke-dasharray:5 4}.weight-0{stroke-width:2.6}.weight-1{opacity:.75}.weight-2{opacity:.5}\
.dot.ours,.bar.ours,.name.ours{fill:var(--ours)}.dot.bare,.bar.bare,.name.bare{fill:var(--bare)}.bar{rx:2px}\
.name{font-size:12px}.roll line{stroke:var(--line)}.seal line{stroke:var(--good);opacity:.45}\
.roll circle,.name.roll{fill:var(--soft)}.seal circle,.name.seal{fill:var(--good)}.strip{fill:var(--bare);opacity:.35}\
.name.strip-name{fill:var(--soft)}\
.wide{overflow-x:auto;margin-bottom:22px}table{border-collapse:collapse;font-size:13px;white-space:nowrap;width:100%}\
th,td{padding:5px 8px;text-align:right;border-bottom:1px solid var(--line)}th{color:var(--soft);font-weight:500}\
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}th:first-child{color:var(--ink);font-weight:650}\
.refused{color:var(--bad);font-weight:600}";
