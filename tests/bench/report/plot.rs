//! A table as bars, with its spread.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Table, short};

/// Pixels.
const WIDTH: u32 = 960;
const HEAD: i32 = 64;
const LINE: i32 = 28;
const LABELS: i32 = 340;
/// What is left for a bar's number.
const NUMBERS: i32 = 130;
const BAR: RGBColor = RGBColor(70, 110, 160);
const BASE: RGBColor = RGBColor(150, 150, 150);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Error<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// Draws `table` into `file`.
pub fn draw(table: &Table, subtitle: &str, file: &Path) -> anyhow::Result<()> {
    let lines = i32::try_from(table.rows.len()).unwrap_or(i32::MAX / LINE);
    let height = HEAD + LINE * (lines + 1);
    let root = SVGBackend::new(file, (WIDTH, height.unsigned_abs())).into_drawing_area();
    paint(&root, table, subtitle).map_err(|error| anyhow::anyhow!("{error}"))
}

fn paint<'a>(root: &Area<'a>, table: &Table, subtitle: &str) -> Result<(), Error<'a>> {
    root.fill(&WHITE)?;
    let dark = ("sans-serif", 14).into_font().color(&BLACK);
    let title = ("sans-serif", 18).into_font().color(&BLACK);
    let small = ("sans-serif", 11).into_font().color(&BASE);
    root.draw_text(&format!("{} ({})", table.title, table.unit), &title, (12, 10))?;
    root.draw_text(subtitle, &small, (12, 36))?;
    let longest = table.rows.iter().map(|row| row.samples.high).fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH.cast_signed() - LABELS - NUMBERS);
    let x = |value: f64| LABELS + (value / longest * room) as i32;
    let right = dark.pos(Pos::new(HPos::Right, VPos::Center));
    let left = ("sans-serif", 14).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
    for (index, row) in table.rows.iter().enumerate() {
        let middle = HEAD + LINE * i32::try_from(index).unwrap_or(0) + LINE / 2;
        let samples = &row.samples;
        let colour = if table.base == Some(index) { BASE } else { BAR };
        root.draw_text(&row.name, &right, (LABELS - 8, middle))?;
        let bar = [(LABELS, middle - 9), (x(samples.median), middle + 9)];
        root.draw(&Rectangle::new(bar, colour.filled()))?;
        let spread = vec![(x(samples.low), middle), (x(samples.high), middle)];
        root.draw(&PathElement::new(spread, BLACK.stroke_width(2)))?;
        let ratio = table.ratio(row).map(|ratio| format!(" (x {ratio:.2})")).unwrap_or_default();
        let end = x(samples.median.max(samples.high)) + 8;
        root.draw_text(&format!("{}{ratio}", short(samples.median)), &left, (end, middle))?;
    }
    root.present()
}
