//! Curves over time as an SVG that a browser and a README can show.

use std::fmt::Write as _;

/// Width of the picture and height of a panel, in pixels.
const SIZE: (f64, f64) = (720.0, 180.0);
/// Room for numbers at the left, and around a panel.
const MARGIN: (f64, f64) = (56.0, 28.0);
/// One for each curve of a panel.
const COLOURS: [&str; 3] = ["#1f77b4", "#d62728", "#2ca02c"];

/// A line through points, from left to right.
pub struct Curve {
    /// What it shows.
    pub name: &'static str,
    /// Where it goes.
    pub points: Vec<(f64, f64)>,
}

/// Curves that share an axis, which begins at zero.
pub struct Panel {
    /// What is shown, with its unit.
    pub title: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// The panels below each other over one axis of that name.
pub fn draw(axis: &str, panels: &[Panel]) -> String {
    let (width, height) = SIZE;
    let whole = height * panels.len() as f64 + 20.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {whole}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{whole}\" fill=\"#fff\"/>\n"
    );
    let points = || panels.iter().flat_map(|panel| &panel.curves).flat_map(|curve| &curve.points);
    let right = points().map(|(x, _)| *x).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    for (index, panel) in panels.iter().enumerate() {
        draw_panel(&mut out, panel, right, index as f64 * height);
    }
    let _ = write!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{right:.0} {axis}</text>\n</svg>\n",
        width - 8.0,
        whole - 6.0
    );
    out
}

fn draw_panel(out: &mut String, panel: &Panel, right: f64, top: f64) {
    let (width, height) = SIZE;
    let (left, space) = MARGIN;
    let values = panel.curves.iter().flat_map(|curve| &curve.points).map(|(_, y)| *y);
    let most = values.fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let (x_of, y_of) =
        (|x: f64| left + x / right * (width - left - 8.0), |y: f64| top + height - y / (most * 1.1) * (height - space));
    let _ = writeln!(out, "<text x=\"{left}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>", top + 16.0, panel.title);
    for value in [0.0, most / 2.0, most] {
        let (y, shown) = (y_of(value), if most < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") });
        let _ = writeln!(
            out,
            "<line x1=\"{left}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{shown}</text>",
            width - 8.0,
            left - 6.0,
            y + 4.0
        );
    }
    for ((index, curve), colour) in panel.curves.iter().enumerate().zip(COLOURS) {
        let points: Vec<String> =
            curve.points.iter().map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y))).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" points=\"{}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\" text-anchor=\"end\">{}</text>",
            points.join(" "),
            width - 8.0 - index as f64 * 60.0,
            top + 16.0,
            curve.name
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_they_belong() {
        let curve = Curve { name: "c", points: vec![(0.0, 0.0), (10.0, 11.0)] };
        let svg = draw("minutes", &[Panel { title: "t", curves: vec![curve] }]);
        // The origin is at the left below; the highest value leaves a tenth above it.
        let end = 180.0 - (180.0 - 28.0) / 1.1;
        assert!(svg.contains(&format!("points=\"56.0,180.0 712.0,{end:.1}\"")), "{svg}");
        assert!(svg.contains("10 minutes") && svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }
}
