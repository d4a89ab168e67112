//! Deleted positions as the rows that are left to read.

use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccess};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use parquet::file::metadata::ParquetMetaData;
use roaring::RoaringTreemap;

/// Some rows of a file.
#[derive(Debug, Clone, Copy)]
pub(in crate::scan) enum Rows<'a> {
    AllBut(&'a RoaringTreemap),
    Only(&'a RoaringTreemap),
}

/// For each row group, which of its rows are to be read: of those that `pages` leaves, where that is known.
pub(in crate::scan) fn access_plan(
    footer: &ParquetMetaData,
    wanted: Rows<'_>,
    pages: Option<&ParquetAccessPlan>,
) -> ParquetAccessPlan {
    let mut base = 0_u64;
    let groups = footer.row_groups().iter().enumerate().map(|(number, group)| {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let selectors = match pages.and_then(|pages| pages.inner().get(number)) {
            Some(RowGroupAccess::Skip) => Vec::new(),
            Some(RowGroupAccess::Selection(left)) => selectors_within(wanted, base, left),
            Some(RowGroupAccess::Scan) | None => selectors(wanted, base, rows),
        };
        base += rows;
        match selectors.as_slice() {
            [] => RowGroupAccess::Skip,
            [only] if only.skip => RowGroupAccess::Skip,
            [_] => RowGroupAccess::Scan,
            _ => RowGroupAccess::Selection(RowSelection::from(selectors)),
        }
    });
    ParquetAccessPlan::new(groups.collect())
}

/// The same for the rows that `left` selects of those from `base` on.
fn selectors_within(wanted: Rows<'_>, base: u64, left: &RowSelection) -> Vec<RowSelector> {
    let mut start = base;
    let runs = left.iter().flat_map(|run| {
        let (from, rows) = (start, run.row_count as u64);
        start += rows;
        if run.skip { vec![*run] } else { selectors(wanted, from, rows) }
    });
    // Runs of the same kind become one.
    RowSelection::from_iter(runs).into()
}

/// Runs of rows to read and to skip that cover the rows `base..base + rows` exactly.
pub(in crate::scan) fn selectors(wanted: Rows<'_>, base: u64, rows: u64) -> Vec<RowSelector> {
    let (listed, skips_listed) = match wanted {
        Rows::AllBut(deleted) => (deleted, true),
        Rows::Only(kept) => (kept, false),
    };
    let end = base + rows;
    let mut selectors: Vec<RowSelector> = Vec::new();
    let mut push = |from: u64, to: u64, skip: bool| {
        let Ok(count) = usize::try_from(to - from) else { return };
        match selectors.last_mut() {
            _ if count == 0 => {}
            Some(last) if last.skip == skip => last.row_count += count,
            _ => selectors.push(if skip { RowSelector::skip(count) } else { RowSelector::select(count) }),
        }
    };
    let mut next = base;
    let mut positions = listed.iter();
    positions.advance_to(base);
    for position in positions.take_while(|position| *position < end) {
        push(next, position, !skips_listed);
        push(position, position + 1, skips_listed);
        next = position + 1;
    }
    push(next, end, !skips_listed);
    selectors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_cover_a_row_group_exactly() {
        let listed: RoaringTreemap = [3, 4, 9, 10, 25].into_iter().collect();
        let (deleted, kept) = (Rows::AllBut(&listed), Rows::Only(&listed));
        let runs = selectors(deleted, 0, 10);
        assert_eq!(runs, vec![RowSelector::select(3), RowSelector::skip(2), RowSelector::select(4), RowSelector::skip(1)]);
        assert_eq!(selectors(deleted, 10, 10), vec![RowSelector::skip(1), RowSelector::select(9)]);
        assert_eq!(selectors(deleted, 30, 5), vec![RowSelector::select(5)]);
        assert!(selectors(deleted, 30, 0).is_empty());
        let left = RowSelection::from(vec![RowSelector::skip(4), RowSelector::select(2), RowSelector::skip(4)]);
        let within = [RowSelector::skip(5), RowSelector::select(1), RowSelector::skip(4)];
        assert_eq!(selectors_within(deleted, 0, &left), within);
        assert_eq!(selectors(kept, 10, 10), vec![RowSelector::select(1), RowSelector::skip(9)]);
        assert_eq!(selectors(kept, 30, 5), vec![RowSelector::skip(5)]);
    }
}
