//! Draws bar charts of figures in the tables of pages.

use super::escaped;
use crate::demo::Result;

/// The colors of the series, in order.
const COLORS: [&str; 3] = ["#adb5bd", "#748ffc", "#e8590c"];
const WIDTH: f64 = 720.0;
/// Where bars begin, and the length of the longest bar.
const LEFT: f64 = 130.0;
const LONGEST: f64 = 500.0;
const BAR: f64 = 16.0;

/// Draws a row of the burst tables, for each burst size.
pub fn burst(page: &str, row: &str, title: &str) -> Result<String> {
    let series = ["baseline, 32 at once", "baseline, 128 at once", "operator"];
    let mut groups = Vec::new();
    for size in ["200", "1,000", "5,000"] {
        let (_, after) = page
            .split_once(&format!("\n{size} executions, "))
            .ok_or_else(|| format!("The page has no table of a burst of {size}."))?;
        let figures = figures(after, row)?;
        groups.push((format!("{size} executions"), figures.into_iter().take(series.len()).collect()));
    }
    Ok(bars(title, &series, &groups))
}

/// Draws the table of tenants: alone, and beside tenants in trouble.
pub fn tenants(page: &str) -> Result<String> {
    let (_, table) = page.split_once("| 47 tenants |").ok_or("The page has no table of tenants.")?;
    let (alone, beside) = (figures(table, "alone")?, figures(table, "beside the three")?);
    let groups: Vec<(String, Vec<f64>)> = ["median", "99th percentile", "slowest"]
        .into_iter()
        .zip(alone.into_iter().zip(beside))
        .map(|(name, (alone, beside))| (name.to_owned(), vec![alone, beside]))
        .collect();
    Ok(bars("From creation to the call that starts the run, in ms", &["alone", "beside three in trouble"], &groups))
}

/// Draws a figure of a restart, for each number of finished executions: with them in the watch, and without.
pub fn finished(page: &str, figure: &str) -> Result<String> {
    let (_, table) =
        page.split_once("| finished executions |").ok_or("The page has no table of finished executions.")?;
    let (watched, left) =
        (figures(table, &format!("{figure}, in the watch"))?, figures(table, &format!("{figure}, outside of it"))?);
    let groups: Vec<(String, Vec<f64>)> = ["1,000 finished", "10,000 finished", "100,000 finished"]
        .into_iter()
        .zip(watched.into_iter().zip(left))
        .map(|(name, (watched, left))| (name.to_owned(), vec![watched, left]))
        .collect();
    Ok(bars(figure, &["in the watch", "outside of it"], &groups))
}

/// The leading numbers of the cells in the first row of this name.
fn figures(text: &str, row: &str) -> Result<Vec<f64>> {
    let start = format!("| {row} |");
    let line =
        text.lines().find(|line| line.starts_with(&start)).ok_or_else(|| format!("No table has the row {row}."))?;
    let numbers: Vec<f64> = line[start.len()..]
        .split('|')
        .map_while(|cell| cell.trim().split(' ').next().and_then(|number| number.replace(',', "").parse().ok()))
        .collect();
    if numbers.is_empty() { Err(format!("The row {row} has no numbers.").into()) } else { Ok(numbers) }
}

fn bars(title: &str, series: &[&str], groups: &[(String, Vec<f64>)]) -> String {
    let most = groups.iter().flat_map(|(_, values)| values).copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut svg = String::new();
    let mut y = 66.0;
    for (name, values) in groups {
        let middle = y + BAR * f64::from(u32::try_from(values.len()).unwrap_or(1)) / 2.0 + 4.0;
        svg += &format!("<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\n", LEFT - 10.0, escaped(name));
        for (value, color) in values.iter().zip(COLORS.iter().cycle().skip(COLORS.len() - series.len())) {
            let width = value / most * LONGEST;
            svg += &format!(
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{value}</text>\n",
                BAR - 2.0,
                LEFT + width + 6.0,
                y + 12.0
            );
            y += BAR;
        }
        y += 14.0;
    }
    let mut x = LEFT;
    let mut legend = String::new();
    for (name, color) in series.iter().zip(COLORS.iter().skip(COLORS.len() - series.len())) {
        legend += &format!(
            "<rect x=\"{x}\" y=\"38\" width=\"12\" height=\"12\" fill=\"{color}\"/>\n<text x=\"{}\" y=\"49\">{}</text>\n",
            x + 18.0,
            escaped(name)
        );
        x += 190.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#222\">\n\
         <!-- Made by `cargo xtask docs`. Do not edit. -->\n\
         <rect width=\"{WIDTH}\" height=\"{y}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}</text>\n{legend}{svg}</svg>\n",
        escaped(title)
    )
}
