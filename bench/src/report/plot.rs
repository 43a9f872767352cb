//! Draws lines over two axes as SVG.
//!
//! Series differ in colour and in dashes, so that a page printed without colours, or read by a colour-blind reader, is
//! as clear. Colours, and those of axes and text, come from the page's style sheet: it has one set for light and one
//! for dark.

use std::fmt::Write as _;

/// The drawing's size and the room for labels, in its own units.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 52.0;
/// How many series have a style of their own; more repeat.
pub(super) const STYLES: usize = 8;
/// About how many ticks a linear axis has.
const TICKS: f64 = 6.0;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    Linear,
    /// By powers of ten; values are above zero.
    Log,
    /// As `Log`, over 1/(1-p): its ticks are labelled with the percentile.
    Percentile,
}

/// One axis.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// What it shows, with the unit.
    pub(super) label: String,
    pub(super) scale: Scale,
    /// Always contains this value.
    pub(super) includes: Option<f64>,
}

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether each point is marked: few points, each of which is a measurement.
    pub(super) marked: bool,
}

/// Lines over two axes.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) title: String,
    /// What was measured, in a sentence.
    pub(super) about: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
}

/// An axis with its limits, on the drawing.
struct Placed<'a> {
    axis: &'a Axis,
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Placed<'_> {
    fn place(&self, value: f64) -> f64 {
        let share = match self.axis.scale {
            Scale::Linear => (value - self.least) / (self.most - self.least),
            Scale::Log | Scale::Percentile => (value / self.least).ln() / (self.most / self.least).ln(),
        };
        self.from + share * (self.to - self.from)
    }

    /// Where ticks stand, and their labels.
    fn ticks(&self) -> Vec<(f64, String)> {
        match self.axis.scale {
            Scale::Linear => {
                let step = nice_step((self.most - self.least) / TICKS);
                let first = (self.least / step).ceil() as i64;
                let last = (self.most / step + 1e-9).floor() as i64;
                (first..=last).map(|tick| (tick as f64 * step, number(tick as f64 * step))).collect()
            }
            Scale::Log => {
                let decades = (self.most / self.least).log10();
                let within: &[f64] = if decades > 3.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let powers = self.least.log10().floor() as i32..=self.most.log10().ceil() as i32;
                let all = powers.flat_map(|power| within.iter().map(move |digit| digit * 10f64.powi(power)));
                let inside = all.filter(|tick| (self.least * 0.999..=self.most * 1.001).contains(tick));
                inside.map(|tick| (tick, number(tick))).collect()
            }
            Scale::Percentile => {
                let last = self.most.log10().floor() as i32;
                (0..=last).map(|power| (10f64.powi(power), percentile(power))).collect()
            }
        }
    }
}

/// The next of 1, 2, 5, 10, 20, …
fn nice_step(least: f64) -> f64 {
    let power = 10f64.powf(least.log10().floor());
    let digit = [1.0, 2.0, 5.0, 10.0].into_iter().find(|digit| digit * power >= least * 0.999);
    digit.unwrap_or(10.0) * power
}

/// A number without needless digits.
pub(super) fn number(value: f64) -> String {
    let digits = if value == 0.0 { 0 } else { (2 - value.abs().log10().floor() as i32).clamp(0, 6) };
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { grouped(&text) }
}

/// A whole number of five digits or more with commas.
fn grouped(digits: &str) -> String {
    if digits.len() < 5 {
        return digits.to_owned();
    }
    let with_comma = |(index, digit): (usize, char)| {
        let begins = index > 0 && (digits.len() - index).is_multiple_of(3);
        [begins.then_some(','), Some(digit)].into_iter().flatten()
    };
    digits.chars().enumerate().flat_map(with_comma).collect()
}

/// The percentile at 1/(1-p) = 10^power: 0 %, 90 %, 99 %, 99.9 %, …
fn percentile(power: i32) -> String {
    match power {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more as usize - 2)),
    }
}

/// Text that stands for itself in HTML and SVG.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl Plot {
    fn limits(&self, axis: &Axis, value: impl Fn(&(f64, f64)) -> f64) -> Option<(f64, f64)> {
        let points = self.series.iter().flat_map(|series| &series.points).map(value);
        let values = points.chain(axis.includes).filter(|value| value.is_finite());
        let values = values.filter(|value| axis.scale == Scale::Linear || *value > 0.0);
        let (least, most) =
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| (least.min(value), most.max(value)));
        (least <= most).then(|| match axis.scale {
            Scale::Linear if least == most => (least - 0.5, most + 0.5),
            Scale::Linear => (least, most + 0.04 * (most - least)),
            Scale::Log => (least / 1.15, most * 1.15),
            Scale::Percentile => (1.0, most.max(10.0)),
        })
    }

    /// The drawing; empty if there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let (Some(x), Some(y)) = (self.limits(&self.x, |point| point.0), self.limits(&self.y, |point| point.1)) else {
            return String::new();
        };
        let x = Placed { axis: &self.x, least: x.0, most: x.1, from: LEFT, to: WIDTH - RIGHT };
        let y = Placed { axis: &self.y, least: y.0, most: y.1, from: HEIGHT - BOTTOM, to: TOP };
        let title = escape(&self.title);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n");
        draw_axes(&mut svg, &x, &y);
        for (index, series) in self.series.iter().enumerate() {
            draw(&mut svg, index % STYLES, series, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The names of the series beside their lines.
    pub(super) fn legend(&self) -> String {
        let mut html = "<ul class=\"legend\">".to_owned();
        for (index, series) in self.series.iter().enumerate() {
            let (style, name) = (index % STYLES, escape(&series.name));
            let line = format!("<line class=\"s s{style}\" x1=\"0\" y1=\"6\" x2=\"34\" y2=\"6\"/>");
            let _ = write!(html, "<li><svg width=\"34\" height=\"12\" aria-hidden=\"true\">{line}</svg> {name}</li>");
        }
        html.push_str("</ul>\n");
        html
    }
}

fn draw_axes(svg: &mut String, x: &Placed<'_>, y: &Placed<'_>) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for (tick, label) in x.ticks() {
        let at = x.place(tick);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\"/>");
        // A label at the very end would be cut off, or meet the one before it.
        if at < right - 24.0 {
            let below = bottom + 16.0;
            let _ =
                writeln!(svg, "<text class=\"tick\" x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>");
        }
    }
    for (tick, label) in y.ticks() {
        let (at, before) = (y.place(tick), LEFT - 8.0);
        let _ = writeln!(svg, "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\"/>");
        let middle = at + 4.0;
        let _ =
            writeln!(svg, "<text class=\"tick\" x=\"{before}\" y=\"{middle:.1}\" text-anchor=\"end\">{label}</text>");
    }
    let _ = writeln!(svg, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>");
    let (middle, lowest) = ((LEFT + right) / 2.0, HEIGHT - 12.0);
    let label = escape(&x.axis.label);
    let _ = writeln!(svg, "<text class=\"label\" x=\"{middle}\" y=\"{lowest}\" text-anchor=\"middle\">{label}</text>");
    let (middle, label) = ((TOP + bottom) / 2.0, escape(&y.axis.label));
    let turned = format!("transform=\"rotate(-90 16 {middle})\"");
    let _ =
        writeln!(svg, "<text class=\"label\" x=\"16\" y=\"{middle}\" text-anchor=\"middle\" {turned}>{label}</text>");
}

fn draw(svg: &mut String, style: usize, series: &Series, x: &Placed<'_>, y: &Placed<'_>) {
    let drawable =
        |value: f64, placed: &Placed<'_>| value.is_finite() && (placed.axis.scale == Scale::Linear || value > 0.0);
    let points = series.points.iter().filter(|(px, py)| drawable(*px, x) && drawable(*py, y));
    let points: Vec<(f64, f64)> = points.map(|(px, py)| (x.place(*px), y.place(*py))).collect();
    let line: Vec<String> = points.iter().map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
    let _ = writeln!(svg, "<polyline class=\"s s{style}\" points=\"{}\"/>", line.join(" "));
    if series.marked || points.len() == 1 {
        for (px, py) in points {
            let _ = writeln!(svg, "<circle class=\"m m{style}\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\"/>");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: &[(f64, f64)], scale: Scale) -> Plot {
        let axis = |scale| Axis { label: "a < b".into(), scale, includes: None };
        let series = vec![Series { name: "one & two".into(), points: points.to_vec(), marked: true }];
        Plot { title: "t".into(), about: String::new(), x: axis(scale), y: axis(Scale::Log), series }
    }

    #[test]
    fn points_stay_inside_and_infinite_ones_are_left_out() {
        let svg = plot(&[(1.0, 5.0), (100.0, 50.0), (f64::INFINITY, 50.0), (5.0, 0.0)], Scale::Percentile).svg();
        assert_eq!(svg.matches("<circle").count(), 2, "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("a &lt; b") && svg.contains(">90 %<"), "{svg}");
    }

    #[test]
    fn nothing_to_draw_gives_no_drawing() {
        assert_eq!(plot(&[], Scale::Linear).svg(), "");
        assert_eq!(plot(&[(1.0, -1.0)], Scale::Linear).svg(), "", "a logarithmic axis has no such point");
    }

    #[test]
    fn one_value_gets_an_axis_too() {
        let svg = plot(&[(3.0, 7.0)], Scale::Linear).svg();
        assert!(svg.contains("<circle") && !svg.contains("NaN"), "{svg}");
    }

    #[test]
    fn numbers_have_no_needless_digits() {
        assert_eq!([0.0, 0.25, 12.5, 1_000.0, 1e6].map(number), ["0", "0.25", "12.5", "1000", "1,000,000"]);
    }
}
