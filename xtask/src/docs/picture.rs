//! Draws a picture of boxes and arrows from a text.

use std::collections::BTreeMap;

use super::escaped;
use crate::demo::Result;

/// The area of a box.
#[derive(Clone, Copy, Debug)]
struct Area {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
}

impl Area {
    fn parse(words: &[&str]) -> Option<Self> {
        let numbers: Vec<f64> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let [x, y, width, height] = numbers[..] else { return None };
        Some(Self { x, y, width, height })
    }

    fn middle(self) -> (f64, f64) {
        (self.x + self.width / 2.0, self.y + self.height / 2.0)
    }
}

/// The picture that the text describes.
pub fn draw(source: &str) -> Result<String> {
    let mut boxes = BTreeMap::new();
    let mut svg = String::new();
    for line in source.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let drawn = match words[..] {
            ["size", width, height] => {
                svg += &format!(
                    "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
                     height=\"{height}\" font-family=\"sans-serif\" font-size=\"13\" text-anchor=\"middle\">\n\
                     <!-- Made by `cargo xtask docs`. Do not edit. -->\n\
                     <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" \
                     markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\" fill=\"#444\"/></marker></defs>\n\
                     <rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#fff\"/>\n"
                );
                Some(())
            }
            ["group", .., _] => Area::parse(&words[1..5]).map(|area| svg += &group(area, &words[5..].join(" "))),
            ["box", name, ..] => words.get(2..6).and_then(Area::parse).map(|area| {
                boxes.insert(name.to_owned(), area);
                svg += &labelled(area, &words[6..].join(" "));
            }),
            ["arrow", from, to, ..] => boxes.get(from).zip(boxes.get(to)).and_then(|(from, to)| {
                svg += &arrow(*from, *to, &words[3..].join(" "))?;
                Some(())
            }),
            _ => None,
        };
        drawn.ok_or_else(|| format!("The picture has a line that cannot be drawn: {line}"))?;
    }
    Ok(svg + "</svg>\n")
}

fn group(area: Area, title: &str) -> String {
    let Area { x, y, width, height } = area;
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#f4f6f8\" stroke=\"#c4ccd4\"/>\n\
         <text x=\"{}\" y=\"{}\" fill=\"#555\" text-anchor=\"start\">{}</text>\n",
        x + 14.0,
        y + 26.0,
        escaped(title)
    )
}

fn labelled(area: Area, text: &str) -> String {
    let Area { x, y, width, height } = area;
    let mut svg = format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" rx=\"6\" fill=\"#fff\" stroke=\"#e8590c\"/>\n"
    );
    let lines: Vec<&str> = text.split(" | ").collect();
    let (middle, center) = area.middle();
    let mut at = center + 5.0 - 18.0 * (f64::from(u32::try_from(lines.len()).unwrap_or(1)) - 1.0) / 2.0;
    for (number, line) in lines.into_iter().enumerate() {
        let style = if number == 0 { "fill=\"#111\" font-weight=\"bold\"" } else { "fill=\"#444\" font-size=\"12\"" };
        svg += &format!("<text x=\"{middle}\" y=\"{at}\" {style}>{}</text>\n", escaped(line));
        at += 18.0;
    }
    svg
}

/// Returns `None` if the boxes are neither side by side nor one above the other.
fn arrow(from: Area, to: Area, label: &str) -> Option<String> {
    let ((from_x, from_y), (to_x, to_y)) = (from.middle(), to.middle());
    let (x1, y1, x2, y2, label_x, label_y, anchor) = if (from_y - to_y).abs() < 1.0 {
        let (x1, x2) = if from_x < to_x { (from.x + from.width, to.x) } else { (from.x, to.x + to.width) };
        (x1, from_y, x2, from_y, f64::midpoint(x1, x2), from_y - 8.0, "middle")
    } else if (from_x - to_x).abs() < 1.0 {
        let (y1, y2) = if from_y < to_y { (from.y + from.height, to.y) } else { (from.y, to.y + to.height) };
        (from_x, y1, from_x, y2, from_x + 10.0, f64::midpoint(y1, y2) + 4.0, "start")
    } else {
        return None;
    };
    Some(format!(
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#444\" stroke-width=\"1.5\" \
         marker-end=\"url(#tip)\"/>\n\
         <text x=\"{label_x}\" y=\"{label_y}\" fill=\"#444\" font-size=\"12\" text-anchor=\"{anchor}\">{}</text>\n",
        escaped(label)
    ))
}
