//! Charts as SVG. They take their colours from the page that they stand in, so that it may be light or dark.

use std::fmt::Write;

use super::results::{ByConnections, ByRate, Moment, Percentiles};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
/// Where the drawing begins and ends; right of it stand the names of lines.
const LEFT: f64 = 58.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 256.0;

/// From values to places.
struct Scale {
    from: f64,
    to: f64,
    start: f64,
    end: f64,
    is_log: bool,
}

impl Scale {
    fn linear(to: f64, start: f64, end: f64) -> Self {
        Self { from: 0.0, to: if to > 0.0 { to } else { 1.0 }, start, end, is_log: false }
    }

    /// Whole powers of ten around the values; what is not above zero stands at the lower end.
    fn log(values: impl Iterator<Item = f64> + Clone, start: f64, end: f64) -> Self {
        let positive = values.filter(|value| *value > 0.0);
        let from = 10_f64.powf(positive.clone().fold(1.0, f64::min).log10().floor());
        let to = 10_f64.powf(positive.fold(1.0, f64::max).log10().ceil()).max(from * 10.0);
        Self { from, to, start, end, is_log: true }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        self.start + share * (self.end - self.start)
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let mut ticks = vec![self.from];
            while ticks[ticks.len() - 1] < self.to * 0.99 {
                ticks.push(ticks[ticks.len() - 1] * 10.0);
            }
            return ticks;
        }
        // About five, at 1, 2 or 5 times a power of ten.
        let rough = self.to / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        (0..=(self.to / step) as usize).map(|number| number as f64 * step).collect()
    }
}

/// p50, p99 and p99.9 over the rate, in milliseconds on a logarithmic scale.
pub fn latency(points: &[ByRate]) -> String {
    let all = points.iter().flat_map(|point| [point.hitlog, point.bare]);
    let values: Vec<f64> = all.flat_map(|latency| [latency.p50, latency.p99, latency.p999]).collect();
    let x = Scale::linear(points.iter().map(|point| point.rate).fold(0.0, f64::max), LEFT, RIGHT);
    let y = Scale::log(values.into_iter(), BOTTOM, TOP);
    let mut out = open("Latency by rate");
    grid(&mut out, &y, |value| format!("{value} ms"));
    x_ticks(&mut out, &x, short);
    let percentiles = |latency: &Percentiles| [latency.p50, latency.p99, latency.p999];
    let mut labels = Vec::new();
    for (at, name) in ["p50", "p99", "p99.9"].into_iter().enumerate() {
        for (who, class) in [("hitlog", "ours"), ("bare hyper", "bare")] {
            let latency = |point: &ByRate| percentiles(if class == "ours" { &point.hitlog } else { &point.bare })[at];
            let places: Vec<_> = points
                .iter()
                .map(|point| (x.at(point.rate), y.at(latency(point)), point.rate, latency(point)))
                .collect();
            let path: Vec<String> = places.iter().map(|(x, y, ..)| format!("{x:.1},{y:.1}")).collect();
            let _ = write!(out, r#"<polyline class="line {class} weight-{at}" points="{}"/>"#, path.join(" "));
            for (x, y, rate, milliseconds) in &places {
                let _ = write!(
                    out,
                    r#"<circle class="dot {class}" cx="{x:.1}" cy="{y:.1}" r="3"><title>{who} {name} at {}/s: {milliseconds:.2} ms</title></circle>"#,
                    short(*rate)
                );
            }
            if let Some((_, y, ..)) = places.last() {
                labels.push((*y, format!("{who} {name}"), class));
            }
        }
    }
    end_labels(&mut out, labels);
    axis_name(&mut out, "events a second");
    out + "</svg>"
}

/// Bars of hitlog and of bare hyper, with hitlog's share above each pair.
pub fn throughput(points: &[ByConnections]) -> String {
    let highest = points.iter().map(|point| point.bare.max(point.hitlog)).fold(0.0, f64::max);
    let y = Scale::linear(highest * 1.08, BOTTOM, TOP);
    let mut out = open("Throughput by connections");
    grid(&mut out, &y, short);
    let slot = (RIGHT - LEFT) / points.len().max(1) as f64;
    for (at, point) in points.iter().enumerate() {
        let middle = LEFT + slot * (at as f64 + 0.5);
        let bar = (slot * 0.32).min(44.0);
        for (who, class, rate, x) in
            [("hitlog", "ours", point.hitlog, middle - bar - 1.0), ("bare hyper", "bare", point.bare, middle + 1.0)]
        {
            let top = y.at(rate);
            let height = BOTTOM - top;
            let _ = write!(
                out,
                r#"<rect class="bar {class}" x="{x:.1}" y="{top:.1}" width="{bar:.1}" height="{height:.1}"><title>{who}, {} connections: {}/s</title></rect>"#,
                point.connections,
                short(rate)
            );
        }
        let above = y.at(point.hitlog.max(point.bare)) - 7.0;
        let _ = write!(
            out,
            r#"<text class="value" x="{middle:.1}" y="{above:.1}" text-anchor="middle">{:.2}</text><text class="tick" x="{middle:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            point.hitlog / point.bare,
            BOTTOM + 17.0,
            point.connections
        );
    }
    end_labels(&mut out, vec![(TOP + 20.0, "hitlog".into(), "ours"), (TOP + 36.0, "bare hyper".into(), "bare")]);
    axis_name(&mut out, "connections; above: hitlog's share of bare hyper");
    out + "</svg>"
}

/// The rate of the long run, with rolls and seals, and below it how many segments wait for their indexes.
pub fn timeline(moments: &[Moment]) -> String {
    const STRIP_TOP: f64 = 210.0;
    const RATE_BOTTOM: f64 = 190.0;
    let last = moments.last().map_or(1.0, |moment| moment.seconds);
    let x = Scale::linear(last, LEFT, RIGHT);
    let y = Scale::linear(moments.iter().map(|moment| moment.rate).fold(0.0, f64::max) * 1.05, RATE_BOTTOM, TOP);
    let most = moments.iter().map(|moment| moment.unsealed).max().unwrap_or(0).max(1) as f64;
    let strip = Scale::linear(most, BOTTOM, STRIP_TOP);
    let mut out = open("Rate over time");
    grid(&mut out, &y, short);
    x_ticks(&mut out, &x, |seconds| format!("{seconds} s"));
    let (mut rates, mut unsealed) = (String::new(), format!("M{LEFT:.1},{BOTTOM:.1}"));
    for moment in moments {
        let at = x.at(moment.seconds);
        for (count, class, name, top) in [
            (moment.rolls, "roll", "rolled to the next segment", TOP + 8.0),
            (moment.seals, "seal", "a segment is sealed", TOP),
        ] {
            if count > 0 {
                let _ = write!(
                    out,
                    r#"<g class="{class}"><line x1="{at:.1}" x2="{at:.1}" y1="{top:.1}" y2="{RATE_BOTTOM:.1}"/><circle cx="{at:.1}" cy="{top:.1}" r="3"><title>{:.1} s: {name}</title></circle></g>"#,
                    moment.seconds
                );
            }
        }
        let _ = write!(rates, "{at:.1},{:.1} ", y.at(moment.rate));
        let _ = write!(unsealed, "H{at:.1}V{:.1}", strip.at(moment.unsealed as f64));
    }
    let _ = write!(unsealed, "V{BOTTOM:.1}Z");
    let _ = write!(
        out,
        r#"<path class="strip" d="{unsealed}"/><polyline class="line ours" points="{}"/>"#,
        rates.trim_end()
    );
    let labels = [
        (TOP + 4.0, "sealed", "seal"),
        (TOP + 20.0, "rolled", "roll"),
        (y.at(moments.last().map_or(0.0, |moment| moment.rate)), "events/s", "ours"),
        ((STRIP_TOP + BOTTOM) / 2.0, "unsealed", "strip-name"),
        ((STRIP_TOP + BOTTOM) / 2.0 + 15.0, &format!("segments, 0–{most}"), "strip-name"),
    ];
    end_labels(&mut out, labels.map(|(y, text, class)| (y, text.to_owned(), class)).into());
    out + "</svg>"
}

fn open(title: &str) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>"#)
}

fn grid(out: &mut String, y: &Scale, name: impl Fn(f64) -> String) {
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = write!(
            out,
            r#"<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{at:.1}" y2="{at:.1}"/><text class="tick" x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            at + 4.0,
            name(tick)
        );
    }
}

fn x_ticks(out: &mut String, x: &Scale, name: impl Fn(f64) -> String) {
    for tick in x.ticks() {
        let (at, y, text) = (x.at(tick), BOTTOM + 17.0, name(tick));
        let _ = write!(out, r#"<text class="tick" x="{at:.1}" y="{y:.1}" text-anchor="middle">{text}</text>"#);
    }
}

fn axis_name(out: &mut String, name: &str) {
    let (x, y) = (f64::midpoint(LEFT, RIGHT), BOTTOM + 37.0);
    let _ = write!(out, r#"<text class="tick" x="{x:.1}" y="{y:.1}" text-anchor="middle">{name}</text>"#);
}

/// Names at the ends of lines, moved apart where they would cover each other.
fn end_labels(out: &mut String, mut labels: Vec<(f64, String, &str)>) {
    const APART: f64 = 14.0;
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = f64::NEG_INFINITY;
    for (y, text, class) in labels {
        let y = y.max(below);
        below = y + APART;
        let _ = write!(out, r#"<text class="name {class}" x="{}" y="{:.1}">{text}</text>"#, RIGHT + 10.0, y + 4.0);
    }
}

/// 1200 as 1.2k.
pub fn short(number: f64) -> String {
    let with = |number: f64, unit: &str| {
        let text = format!("{number:.1}");
        format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
    };
    match number {
        number if number >= 1e6 => with(number / 1e6, "M"),
        number if number >= 1e3 => with(number / 1e3, "k"),
        number => with(number, ""),
    }
}
