//! A chart as SVG: curves over linear or logarithmic axes, readable on light and on dark pages.

use std::fmt::Write as _;

use crate::model::{Axis, Chart, Curve, digits};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 92.0;
/// Blue, orange, green, purple: apart for every kind of colour vision, and light enough for a dark page.
const COLOURS: [&str; 4] = ["#2f81f7", "#e3742f", "#2da44e", "#a371f7"];
const LIMIT_COLOURS: [&str; 2] = ["#7d8590", "#a8935f"];
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600;font-size:15px}.page{fill:#ffffff}\
.grid{stroke:#d8dee4;stroke-width:1}.axis{stroke:#656d76;stroke-width:1}.curve{fill:none;stroke-width:2.2;stroke-linejoin:round}\
.limit{stroke-dasharray:7 4}@media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.grid{stroke:#2b3138}\
.axis{stroke:#848d97}}";

/// Draws a chart.
pub(crate) fn draw(chart: &Chart) -> String {
    let points = || chart.curves.iter().flat_map(|curve| curve.points.iter().copied());
    let x = Scale::new(&chart.x, points().map(|(x, _)| x), (LEFT, WIDTH - RIGHT));
    let y = Scale::new(&chart.y, points().map(|(_, y)| y), (HEIGHT - BOTTOM, TOP));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"6\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"28\">{title}</text>\n",
        title = escape(&chart.title),
    );
    grid(&mut svg, &x, &y);
    labels(&mut svg, chart);
    let mut colours = Colours::default();
    for (index, curve) in chart.curves.iter().enumerate() {
        let colour = colours.next(curve);
        draw_curve(&mut svg, curve, colour, &x, &y);
        legend(&mut svg, curve, colour, index);
    }
    svg + "</svg>\n"
}

/// From a value to its place.
struct Scale {
    log: bool,
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, (from, to): (f64, f64)) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite() && (!axis.log || *value > 0.0)).collect();
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        let (low, high) = match (values.is_empty(), axis.log) {
            (true, _) => (1.0, 10.0),
            (false, true) => (step_below(low), step_above(high)),
            (false, false) => (0.0, high * 1.08),
        };
        let high = if high > low { high } else { low + 1.0 };
        Self { log: axis.log, low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share
    }

    /// Where lines are drawn: at 1, 2 and 5 of each decade while they are few, else at the decades; or some six even steps.
    fn ticks(&self) -> Vec<f64> {
        if !self.log {
            let step = step_above((self.high - self.low) / 6.0);
            return (0..).map(|n| self.low + step * f64::from(n)).take_while(|tick| *tick <= self.high).collect();
        }
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let leads: &[f64] = if decades.clone().count() > 4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
        let ticks = decades.flat_map(|decade| leads.iter().map(move |lead| lead * 10_f64.powi(decade)));
        ticks.filter(|tick| (self.low * 0.999..=self.high * 1.001).contains(tick)).collect()
    }
}

/// The largest of 1, 2 or 5 times a power of ten that is not above the value.
fn step_below(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let lead = value / decade;
    decade
        * if lead >= 5.0 {
            5.0
        } else if lead >= 2.0 {
            2.0
        } else {
            1.0
        }
}

/// The smallest of them that is not below it.
fn step_above(value: f64) -> f64 {
    let below = step_below(value);
    if below >= value * 0.999_999 {
        return below;
    }
    let lead = below / 10_f64.powf(below.log10().floor() + 1e-9);
    below * if lead > 1.5 && lead < 3.0 { 2.5 } else { 2.0 }
}

fn grid(svg: &mut String, x: &Scale, y: &Scale) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for tick in x.ticks() {
        let at = x.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            short(tick)
        );
    }
    for tick in y.ticks() {
        let at = y.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.5,
            short(tick)
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{bottom}\"/>\
         <line class=\"axis\" x1=\"{LEFT}\" y1=\"{TOP}\" x2=\"{LEFT}\" y2=\"{bottom}\"/>"
    );
}

fn labels(svg: &mut String, chart: &Chart) {
    let (middle_x, middle_y) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{middle_x}\" y=\"{}\" text-anchor=\"middle\">{}</text>\
         <text transform=\"translate(20 {middle_y}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        HEIGHT - BOTTOM + 42.0,
        escape(&chart.x.label),
        escape(&chart.y.label)
    );
}

fn draw_curve(svg: &mut String, curve: &Curve, colour: &str, x: &Scale, y: &Scale) {
    let place = |(px, py): &(f64, f64)| format!("{:.1},{:.1}", x.at(*px), y.at(*py));
    let path: Vec<String> = curve.points.iter().map(place).collect();
    let class = if curve.is_limit { "curve limit" } else { "curve" };
    let _ = writeln!(svg, "<polyline class=\"{class}\" stroke=\"{colour}\" points=\"{}\"/>", path.join(" "));
    // Few points are shown as such; many would hide their curve.
    if !curve.is_limit && curve.points.len() <= 30 {
        for (px, py) in &curve.points {
            let _ = write!(svg, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x.at(*px), y.at(*py));
        }
        svg.push('\n');
    }
}

fn legend(svg: &mut String, curve: &Curve, colour: &str, index: usize) {
    let (left, top) = (LEFT + (index % 4) as f64 * 168.0, HEIGHT - 24.0 + (index / 4) as f64 * 16.0);
    let class = if curve.is_limit { "curve limit" } else { "curve" };
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" stroke=\"{colour}\" x1=\"{left}\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\"/><text x=\"{}\" y=\"{}\">{}</text>",
        left + 26.0,
        left + 32.0,
        top + 4.5,
        escape(&curve.name)
    );
}

/// Hands out colours: ours from one palette, limits from another.
#[derive(Default)]
struct Colours {
    ours: usize,
    limits: usize,
}

impl Colours {
    fn next(&mut self, curve: &Curve) -> &'static str {
        let (palette, used): (&[&str], &mut usize) =
            if curve.is_limit { (&LIMIT_COLOURS, &mut self.limits) } else { (&COLOURS, &mut self.ours) };
        let colour = palette[*used % palette.len()];
        *used += 1;
        colour
    }
}

/// Thousands as k, millions as M: a place on an axis is narrow.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        1_000_000.0.. => format!("{}M", trimmed(value / 1_000_000.0)),
        1_000.0.. => format!("{}k", trimmed(value / 1_000.0)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = digits(value);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_by_one_two_and_five() {
        assert_eq!([0.7, 1.0, 3.0, 6.0, 40.0, 99.0].map(step_below), [0.5, 1.0, 2.0, 5.0, 20.0, 50.0]);
        let above = [0.7, 1.0, 3.0, 6.0, 40.0, 99.0].map(step_above);
        let wanted = [1.0, 1.0, 5.0, 10.0, 50.0, 100.0];
        assert!(above.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-9), "{above:?}");
    }

    #[test]
    fn a_logarithmic_axis_gives_each_decade_the_same_room() {
        let scale = Scale::new(&Axis::log("x"), [1.0, 100.0].into_iter(), (0.0, 10.0));
        assert_eq!([1.0, 10.0, 100.0].map(|value| scale.at(value)), [0.0, 5.0, 10.0]);
        assert_eq!(scale.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    }

    #[test]
    fn the_same_figures_make_the_same_picture() {
        let mut curve = Curve::ours("a < b");
        curve.points = vec![(1.0, 2.0), (10.0, 3.0)];
        let chart = Chart {
            file: "x".into(),
            title: "T".into(),
            x: Axis::log("x"),
            y: Axis::linear("y"),
            curves: vec![curve, Curve::limit("raw")],
        };
        let svg = draw(&chart);
        assert_eq!(svg, draw(&chart));
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}
